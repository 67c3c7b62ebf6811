"""Principal components of large sets, on the device, in chunks."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


def principal_components(
    chunks: Iterable[Float[Tensor, "_ q"]], num_components: int
) -> tuple[Float[Tensor, "u q"], Float[Tensor, " q"]]:
    """Return the leading orthonormal principal axes of all rows, and their mean.

    Rows come in chunks, so the set is never in memory as a whole; mean and covariance are
    accumulated in float64 because they are differences of large sums. The sign of each axis is
    fixed (its largest entry is positive), for reproducibility across machines; axes beyond the rank
    of the rows are any that rounding gives.

    Raises:
        ValueError: there are fewer than `num_components` dimensions.
    """
    count, total, gram = 0, None, None
    for chunk in chunks:
        rows = chunk.double()
        count += len(rows)
        total = rows.sum(0) if total is None else total + rows.sum(0)
        gram = rows.T @ rows if gram is None else gram.addmm_(rows.T, rows)
    if total is None or gram is None or num_components > len(total):
        raise ValueError(f"no {num_components} components in {0 if total is None else len(total)}")
    mean = total / count
    _, axes = torch.linalg.eigh(gram / count - torch.outer(mean, mean))
    leading = axes.flip(1)[:, :num_components].T
    largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
    return (leading * largest.sign()).float().contiguous(), mean.float()
