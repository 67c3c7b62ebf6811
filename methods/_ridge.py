"""Kernel ridge regression: the only place where a linear system is solved."""

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_predict(
    support: Float[Tensor, "s p"],
    targets: Float[Tensor, "s d"],
    queries: Float[Tensor, "b p"],
    *,
    ridge: float,
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
    """
    kernel = support @ support.T + 1
    regularised = kernel + torch.diag(ridge * kernel.detach().trace().expand(len(kernel)))
    factor, failed = torch.linalg.cholesky_ex(regularised)
    weights = torch.cholesky_solve(targets, factor)
    return torch.where(failed == 0, (queries @ support.T + 1) @ weights, torch.nan)
