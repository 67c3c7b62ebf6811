"""Random real images: the initialisation of every method, and the baseline `random`."""

import torch
from jaxtyping import Int64
from torch import Tensor

from benchmark.spec import Problem, UsageError


def draw_images(problem: Problem, m: int, generator: torch.Generator) -> Int64[Tensor, " m"]:
    """Return the indices of `m` distinct source images, drawn without regard to class.

    Raises:
        UsageError: the source has fewer.
    """
    n = len(problem.images)
    expect_enough(n, m)
    return torch.randperm(n, generator=generator, device=generator.device)[:m]


def expect_enough(num_images: int, m: int) -> None:
    """Raise a UsageError if there are fewer than `m` images."""
    if m > num_images:
        raise UsageError(
            f"needs {m} images, but the source has only {num_images}: choose a smaller budget"
        )
