"""The published probe: SGD on raw features."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.captured import CapturedStep
from benchmark.memory import num_at_once
from benchmark.network import Precision
from benchmark.probes.linear import Classifiers, Walk, in_own_span
from benchmark.probes.logistic import one_hot
from benchmark.ranges import expect_counts, expect_momenta, expect_positive
from benchmark.spec import Loop


@dataclass(frozen=True, kw_only=True)
class PaperProbe:
    """The linear evaluation of KRR-ST, which the paper follows: SGD on raw features.

    Cross-entropy, no weight decay, the layer initialised like `torch.nn.Linear`, and successive
    shuffled passes in full batches (there, the last batch of a pass is short). Defaults are those
    of KRR-ST's released code (`linear_eval`), which normalises a transfer set by its own
    statistics; here a network keeps those of its source.
    """

    name: ClassVar[str] = "paper"
    lr: float = 0.2
    momentum: float = 0.9
    steps: int = 5_000  # with a cosine schedule to zero
    batch: int = 512  # or the whole subset, if smaller

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        expect_counts(self, "steps", "batch")
        expect_positive(self, "lr")
        expect_momenta(self, "momentum")

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
        """See `Probe.fit`; `precision` is ignored, as all products affect the solution.

        Weights change only within the span of the features, so with fewer images than features it
        is equivalent, and cheaper, to use coordinates in that span.
        """
        (b, q), p, bound = subsets.shape, features.shape[1], 1 / math.sqrt(features.shape[1])
        start = torch.rand((b, num_classes, p + 1), generator=generator)
        start = start.mul_(2 * bound).sub_(bound).to(features)
        rows = self._rows(b, q, generator)
        size = num_at_once(b, each=self.bytes_of_subset(q, p, num_classes), max_memory=max_memory)
        descend = self._descend if p <= q else self._descend_in_span

        def descended(first: int) -> tuple[Tensor, Tensor]:
            group = slice(first, min(first + size, b))
            walk = partial(
                checkpoint.steps, f"steps of draws {first} to {group.stop - 1}", self.steps
            )
            return descend(features, labels, subsets[group], rows[group], start[group], walk)

        parts = [descended(first) for first in range(0, b, size)]
        weights, biases = (torch.cat(part) for part in zip(*parts, strict=True))
        finite = weights.isfinite().all() & biases.isfinite().all()
        return Classifiers(weights=weights, biases=biases, strength=None, converged=bool(finite))

    def bytes_of_subset(self, q: int, p: int, k: int) -> int:
        """Return the approximate memory of a subset.

        These are the features of two batches (or of all its images, with their QR decomposition),
        three tensors of logits, four of weights, and row indices for all steps.
        """
        batch = min(self.batch, q)
        features = 2 * batch * p if p <= q else 4 * q * p + 2 * q * q
        return 4 * (features + k * (3 * batch + 4 * p)) + 16 * self.steps * batch

    def _rows(
        self, num_subsets: int, num_images: int, generator: torch.Generator
    ) -> Int64[Tensor, "b t"]:
        """Return which images of its subset each step sees: successive shuffled passes."""
        length = self.steps * min(self.batch, num_images)
        passes = math.ceil(length / num_images)
        order = [
            torch.randperm(num_images, generator=generator) for _ in range(num_subsets * passes)
        ]
        return torch.stack(order).view(num_subsets, -1)[:, :length]

    def _descend_in_span(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        subsets: Int64[Tensor, "b q"],
        rows: Int64[Tensor, "b t"],
        start: Float[Tensor, "b k w"],
        walk: Walk,
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"]]:
        """Return the result of `_descend`, using coordinates in the span of each subset."""
        b, q = subsets.shape
        x, basis = in_own_span(features[subsets])
        inside = start[..., :-1] @ basis
        weights, biases = self._descend(
            x.flatten(0, 1),
            labels[subsets].flatten(),
            torch.arange(b * q, device=subsets.device).view(b, q),
            rows,
            torch.cat([inside, start[..., -1:]], dim=2),
            walk,
        )
        return start[..., :-1] + (weights - inside) @ basis.mT, biases

    def _descend(
        self,
        features: Float[Tensor, "n p"],
        labels: Int64[Tensor, " n"],
        subsets: Int64[Tensor, "b q"],
        rows: Int64[Tensor, "b t"],
        start: Float[Tensor, "b k w"],
        walk: Walk,
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k"]]:
        """Return weights and biases after all steps, equivalent to `torch.optim.SGD`."""
        rows = subsets.gather(1, rows.to(subsets.device))
        weights, biases = start[..., :-1].contiguous(), start[..., -1:].contiguous()
        velocity, bias_velocity = torch.zeros_like(weights), torch.zeros_like(biases)
        targets = one_hot(labels[None], start.shape[1])[0].T.contiguous()
        state = {
            "weights": weights,
            "velocity": velocity,
            "biases": biases,
            "bias_velocity": bias_velocity,
        }

        def descend(batch: Tensor, rate: Tensor) -> tuple[()]:
            x = features[batch]
            logits = torch.baddbmm(biases, weights, x.mT)
            residuals = logits.softmax(1).sub_(targets[batch].mT).div_(batch.shape[1])
            velocity.baddbmm_(residuals, x, beta=self.momentum)
            bias_velocity.mul_(self.momentum).add_(residuals.sum(2, keepdim=True))
            weights.addcmul_(velocity, rate, value=-1)
            biases.addcmul_(bias_velocity, rate, value=-1)
            return ()

        take = CapturedStep(descend, state.values)
        batches = rows.unflatten(1, (self.steps, -1)).unbind(1)
        fractions = torch.arange(self.steps, dtype=torch.float64) / self.steps
        rates = (self.lr * (1 + (math.pi * fractions).cos()) / 2).to(weights).unbind()
        for step in walk(**state):
            take(batches[step], rates[step])
        return weights, biases[..., 0]
