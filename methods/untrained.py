"""The control without pretraining: the student as initialised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import ImageShape, Limit, Loop, Problem, Supervision, TrainingSet
from benchmark.workload import Forecast

__all__ = ["Untrained"]


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """Stores nothing; its accuracy is due to the architecture alone."""

    supervision: ClassVar[Supervision] = "none"
    limit: ClassVar[Limit] = "none"

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return no tensors."""
        return {}

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        return Forecast()

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet | None:
        """Return None: the student stays as initialised."""
        return None
