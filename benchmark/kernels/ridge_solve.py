"""Ridge regression with its gradient: Cholesky against LU."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, relu

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._outer_forecast import ridge_operations
from benchmark.methods._ridge import ridge_predict
from benchmark.methods.krr_st import KrrSt

from ._ridge import plain_ridge
from ._setting import normal

__all__ = ["ridge_solve"]


def ridge_solve(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the solve of one outer step of `krr-st`; see `ridge_operations`.

    Bytes: features of support points (with their gradient) and of real images; targets likewise.
    """
    s, p, b, d = (12, 64, 20, 8) if small else (100, 8192, 1024, 512)
    support = relu(normal("support", s, p, compute=compute))
    queries = relu(normal("queries", b, p, compute=compute))
    targets, wanted = (normal(name, n, d, compute=compute) for name, n in (("y", s), ("z", b)))
    ridge = KrrSt().ridge

    def solved(predict: Callable[..., Tensor]) -> Outcome:
        x, y = support.detach().requires_grad_(), targets.detach().requires_grad_()
        loss = mse_loss(predict(x, y, queries, ridge=ridge), wanted)
        return (loss.detach(), *torch.autograd.grad(loss, (x, y)))

    return Kernel(
        shape=f"{s} support points, {b} queries, {p} features, d = {d}",
        fast=lambda: solved(ridge_predict),
        plain=lambda: solved(plain_ridge),
        operations={"matrix product fp32": sum(ridge_operations(s=s, p=p, b=b, d=d))},
        num_bytes=4 * (2 * s * p + 2 * b * p + 3 * s * d + 3 * b * d),
        twin_is_counted=False,
        tolerance=1e-4,
        tried=(
            "Adding 1 to the kernel instead of a column of ones saves a copy of all features. "
            "Cholesky instead of LU halves a part that is small at this shape, as the products "
            "with the features dominate."
        ),
    )
