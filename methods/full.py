"""The control without distillation: the whole source set with its representations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import ImageShape, Limit, Loop, Problem, Supervision, TrainingSet
from benchmark.workload import Forecast

from ._distilled import decode_pairs

__all__ = ["Full"]


@dataclass(frozen=True, kw_only=True)
class Full:
    """Every source image (uint8) and representation, whatever the budget.

    With the recipe `paper` its student takes as many epochs as any other, and thus many times the
    steps: an upper bound on what a budget costs. With `equal-steps` it takes the same number of
    steps.
    """

    supervision: ClassVar[Supervision] = "none"
    limit: ClassVar[Limit] = "none"

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return all images and all representations."""
        return {"images": problem.images, "targets": problem.representations("identity")}

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        n, d = problem.representations("identity").shape
        return Forecast(pairs=n, stored=n * (problem.shape.numel + 4 * d))

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the pairs as they are."""
        return decode_pairs(stored)
