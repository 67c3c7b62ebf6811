"""Random real images with their labels, balanced over classes: the classic baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import (
    ImageShape,
    Limit,
    Loop,
    Outline,
    Problem,
    Supervision,
    TrainingSet,
)
from benchmark.workload import Forecast

from ._labelled import RealImages, hard_labelled, images_per_class

__all__ = ["RandomLabels"]


@dataclass(frozen=True, kw_only=True)
class RandomLabels:
    """IPC random real images of each class, stored as bytes, ordered by class."""

    supervision: ClassVar[Supervision] = "labels"
    limit: ClassVar[Limit] = "numbers"

    def check(self, outline: Outline) -> None:
        """Refuse a budget that does not give the same number of images of each class."""
        images_per_class("random-labels", outline)

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return the images; their order implies the labels."""
        k, ipc = images_per_class("random-labels", problem.outline)
        real = RealImages.of(problem, generator)
        rows = torch.stack([real.draw_rows(c, ipc) for c in range(k)])
        return {"images": problem.images[rows]}

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        k, ipc = images_per_class("random-labels", problem.outline)
        return Forecast(pairs=k * ipc)

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the images with the labels implied by their order."""
        return hard_labelled(stored["images"])
