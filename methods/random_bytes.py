"""Random real images, as many as fit in the budget's bytes: what storing floats costs others.

A budget of N takes 4 N (c h w + d) bytes as float32. A real image takes c h w bytes and its
representation 2 d as float16, whose rounding error (2^-11) is negligible for a student. At 32x32
and d = 512 that is three and a half times as many pairs as `random` has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import (
    FLOAT_BYTES,
    ImageShape,
    Limit,
    Loop,
    Problem,
    Supervision,
    TrainingSet,
    UsageError,
)
from benchmark.workload import Forecast

from ._distilled import decode_pairs
from ._subset import draw_images

__all__ = ["RandomBytes"]


@dataclass(frozen=True, kw_only=True)
class RandomBytes:
    """As many pairs as fit in the bytes, regardless of the count of numbers."""

    supervision: ClassVar[Supervision] = "none"
    limit: ClassVar[Limit] = "bytes"

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return the images (uint8) and their representations (float16).

        Raises:
            UsageError: a representation exceeds the range of float16.
        """
        chosen = draw_images(problem, _num_pairs(problem), generator)
        targets = problem.representations("identity")[chosen].to(torch.float16)
        if not bool(targets.isfinite().all()):
            raise UsageError(
                "random-bytes stores representations as float16, and some of this teacher's exceed "
                f"its {torch.finfo(torch.float16).max:.0f}: rescale the teacher's output"
            )
        return {"images": problem.images[chosen], "targets": targets}

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        return Forecast(pairs=_num_pairs(problem))

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the pairs, with representations as float32."""
        return decode_pairs(stored)


def _num_pairs(problem: Problem) -> int:
    """Return how many pairs fit in the budget's bytes, with float16 representations."""
    pair = problem.shape.numel + 2 * problem.representations("identity").shape[1]
    return min(FLOAT_BYTES * problem.num_floats // pair, len(problem.images))
