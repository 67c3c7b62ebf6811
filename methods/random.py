"""Random real images with the teacher's representations: KRR-ST's initialisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import ImageShape, Limit, Loop, Outline, Problem, Supervision, TrainingSet
from benchmark.workload import Forecast

from ._distilled import decode_pairs
from ._subset import draw_images, expect_enough

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True)
class Random:
    """N random real images, stored as bytes, and their representations."""

    supervision: ClassVar[Supervision] = "none"
    limit: ClassVar[Limit] = "numbers"

    def check(self, outline: Outline) -> None:
        """Refuse a budget of more images than there are."""
        expect_enough(outline.num_images, outline.N)

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return N images (uint8) and N representations."""
        chosen = draw_images(problem, problem.budget.N, generator)
        return {
            "images": problem.images[chosen],
            "targets": problem.representations("identity")[chosen],
        }

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        return Forecast(pairs=problem.budget.N)

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the pairs as they are."""
        return decode_pairs(stored)
