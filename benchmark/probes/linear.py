"""The interface of linear probes, and code shared by both kinds.

A probe fits a linear classifier on each of b subsets of a training split at once, with q images
each: one subset with all labels, or ten small ones with few labels. It never sees test data.
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
    """The fitted classifiers: a linear one for each subset of the training split.

    Attributes:
        weights, biases: for raw features.
        strength: penalty that the probe chose, if any.
        converged: whether all fits converged (or, for SGD, stayed finite).
    """

    weights: Float[Tensor, "b k p"]
    biases: Float[Tensor, "b k"]
    strength: float | None
    converged: bool

    def predict(self, features: Float[Tensor, "n p"]) -> Int64[Tensor, "b n"]:
        """Return the class that each classifier predicts for each image."""
        return (self.weights @ features.T + self.biases[..., None]).argmax(1)


@runtime_checkable
class Probe(Protocol):
    """A way to fit linear classifiers: a frozen dataclass of settings."""

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
            subsets: row indices.
            num_classes: number of classes.
            generator: source of all randomness, on the CPU.
            checkpoint: lets an interrupted fit resume.
            precision: of intermediate products that do not affect the final solution.
            max_memory: bytes; as many subsets are in memory at once as fit in half of it. It
                changes numbers by rounding only.
        """


def random_ranks(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return the rank of each image, from 0, in a random order of its class."""
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
