"""Kernel ridge regression, by Cholesky factors, with its gradient in closed form."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchmark.network import Precision
from benchmark.tf32 import products_in_tf32


def ridge_predict(
    support: Float[Tensor, "s p"],
    targets: Float[Tensor, "s d"],
    queries: Float[Tensor, "b p"],
    *,
    ridge: float,
    precision: Precision = "fp32",
) -> Float[Tensor, "b d"]:
    """Predict targets of `queries` by ridge regression on `support` and `targets`.

    With a bias column, phi~ = [phi, 1], the kernels are K_ss = phi~_s phi~_s^T and
    K_qs = phi~_q phi~_s^T, and the prediction is ::

        K_qs (K_ss + lambda I)^-1 Y,      lambda = ridge * trace(K_ss)

    (Lee et al. 2024, section 4; their released code). lambda is not divided by the number of
    support points and passes no gradient. The dual form is used because there are fewer support
    points than features in every published setting. The matrix is symmetric positive definite, so
    it is solved by Cholesky, in the dtype of the features (never bf16: lambda would vanish beside
    the trace). If it is not, because features are not finite or `ridge` is too small, the
    prediction is NaN, which shows in the loss; this needs no synchronisation.

    `precision` is that of the network that made the features. With bf16, a GPU runs products of
    features, which are most of the arithmetic, in TF32; the system is solved in fp32 all the same.
    """
    product = _product_in_tf32 if precision == "bf16" else _product
    kernel = product(support, support) + 1
    regularised = kernel + torch.diag(ridge * kernel.detach().trace().expand(len(kernel)))
    factor, failed = torch.linalg.cholesky_ex(regularised)
    weights = torch.cholesky_solve(targets, factor)
    return torch.where(failed == 0, (product(queries, support) + 1) @ weights, torch.nan)


def _product(x: Float[Tensor, "n p"], y: Float[Tensor, "m p"]) -> Float[Tensor, "n m"]:
    return x @ y.T


def _product_in_tf32(x: Float[Tensor, "n p"], y: Float[Tensor, "m p"]) -> Float[Tensor, "n m"]:
    product: Tensor = _ProductInTf32.apply(x, y)
    return product


class _ProductInTf32(torch.autograd.Function):
    """`_product`, and its gradients, which go back to the network in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        with products_in_tf32():
            return x @ y.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        of_x, of_y = ctx.needs_input_grad
        with products_in_tf32():
            return (gradient @ y if of_x else None, (x.T @ gradient).T if of_y else None)
