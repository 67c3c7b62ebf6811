"""Textbook ridge regression: a column of ones, a matrix for lambda, and LU."""

import torch
from jaxtyping import Float
from torch import Tensor


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
