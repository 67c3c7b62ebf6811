"""What a linear probe is, and what both kinds share.

A probe fits one linear classifier on every one of b subsets of a training split at once, of q
images each: all labels are one subset, few labels are ten small ones. It never sees what it is
tested on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.network import Precision
from benchmark.spec import Loop

Walk = Callable[..., Iterator[int]]
"""A `Loop.steps` of one loop: it is told what changes, and yields the steps that remain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifiers:
    """What a probe fits: one linear classifier for each subset of the training split.

    Attributes:
        weights, biases: for raw features.
        strength: of the penalty that the probe chose, if it has one.
        converged: whether fitting ended as it should.
    """

    weights: Float[Tensor, "b k p"]
    biases: Float[Tensor, "b k"]
    strength: float | None
    converged: bool

    def predict(self, features: Float[Tensor, "n p"]) -> Int64[Tensor, "b n"]:
        """Return the class that each classifier sees in each image."""
        return (self.weights @ features.T + self.biases[..., None]).argmax(1)


@runtime_checkable
class Probe(Protocol):
    """A way to fit linear classifiers: a frozen dataclass of its settings."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def fit(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        *,
        subsets: Int64[Tensor, "b q"],
        num_classes: int,
        generator: torch.Generator,
        checkpoint: Loop,
        precision: Precision = "fp32",
        max_memory: int | None = None,
    ) -> Classifiers:
        """Fit one classifier on each subset.

        Args:
            features: of all images.
            labels: likewise.
            subsets: row numbers.
            num_classes: that there are.
            generator: of all that is random, on the CPU.
            checkpoint: lets a fit that was cut short go on.
            precision: of products on the way, where they do not decide where it ends.
            max_memory: bytes; of the subsets as many are in memory at once as half of it holds. No
                number depends on it but for rounding.
        """


def random_ranks(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return the place of each image in a random order of its class, from 0."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return ranks


def in_own_span(
    x: Float[Tensor, "b q p"],
) -> tuple[Float[Tensor, "b q q"], Float[Tensor, "b p q"]]:
    """Return coordinates of q < p images in an orthonormal basis of their span, and the basis."""
    basis, coordinates = torch.linalg.qr(x.mT)
    return coordinates.mT.contiguous(), basis
