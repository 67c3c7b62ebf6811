"""Textbook ridge regression: a column of ones, a matrix for lambda, and LU."""

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.timing import Operations, Rate


def plain_ridge(
    support: Float[Tensor, "s p"],
    targets: Float[Tensor, "s d"],
    queries: Float[Tensor, "b p"],
    *,
    ridge: float,
) -> Float[Tensor, "b d"]:
    """Predict at `queries`, see `methods._ridge`."""
    support = torch.cat([support, torch.ones(len(support), 1, device=support.device)], dim=1)
    queries = torch.cat([queries, torch.ones(len(queries), 1, device=queries.device)], dim=1)
    kernel = support @ support.T
    regularisation = ridge * torch.trace(kernel.detach())
    identity = torch.eye(len(kernel), device=kernel.device)
    weights: Tensor = torch.linalg.solve(kernel + regularisation * identity, targets)
    return queries @ support.T @ weights


def ridge_operations(
    *, s: int, p: int, b: int, d: int, of_kernels: Rate = "matrix product fp32"
) -> Operations:
    """Count a prediction and its gradients with respect to support points and targets.

    Products: 2 s s p + 2 b s p + 2 b s d forward, and 4 s s p (both factors of the kernel), 2 b s p
    and 4 b s d backward. Triangular solves: 2 s s d forward, twice that backward. Cholesky and its
    gradient: of order s^3. `of_kernels` bounds the rate of products of features, those with a p.
    """
    operations: dict[Rate, int] = {"matrix product fp32": 6 * b * s * d + 6 * s * s * d + s**3}
    operations[of_kernels] = operations.get(of_kernels, 0) + 6 * s * s * p + 4 * b * s * p
    return operations
