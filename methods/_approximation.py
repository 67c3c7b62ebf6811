"""Approximation networks: predict a view's target codes from those of the original image."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from benchmark.spec import COMPONENTS, Loop

NETWORKS = COMPONENTS["networks"]  # names of the stored weights
_BATCH = 1024


def num_floats(num_networks: int, q: int, hidden: int) -> int:
    """Return the parameter count of all networks: q -> hidden -> q with biases, one per view."""
    return num_networks * (2 * q * hidden + hidden + q)


def predict_shift(
    weights: Mapping[str, Tensor], codes: Float[Tensor, "m q"]
) -> Float[Tensor, "a m q"]:
    """Return each network's prediction of how the codes shift under its view.

    All networks run as one batched product: their weights are stacked, [a q hidden] and [a hidden
    q].
    """
    stacked = codes.expand(len(weights["approximation_weight_1"]), *codes.shape)
    hidden = relu(
        torch.baddbmm(
            weights["approximation_bias_1"].unsqueeze(1),
            stacked,
            weights["approximation_weight_1"],
        )
    )
    return torch.baddbmm(
        weights["approximation_bias_2"].unsqueeze(1), hidden, weights["approximation_weight_2"]
    )


def fit_shifts(
    codes: Float[Tensor, "v m q"],
    *,
    views: Sequence[str],
    hidden: int,
    steps: int,
    lr: float,
    generator: torch.Generator,
    checkpoint: Loop,
) -> dict[str, Tensor]:
    """Fit one small network per augmented view to `codes[view] - codes[identity]`.

    The networks see codes and shifts scaled to unit RMS and initially predict the mean shift, with
    their second layers at zero (a random initialisation is never quite forgotten where q is large
    and images are few). They are trained together on mean squared error (Adam, batches of at most 1
    024 images, linear decay). The scales are folded into the weights afterwards, so they cost no
    storage. The logged errors, of all views together and of each, are relative to predicting no
    shift.
    """
    size, shift_size = _root_mean_square(codes[0]), _root_mean_square(codes[1:] - codes[0])
    inputs, shifts = codes[0] / size, (codes[1:] - codes[0]) / shift_size
    a, m, q = shifts.shape
    names = [f"relative_error_{view}" for view in views[1:]]
    sizes = shifts.square().mean((1, 2)).clamp_min(torch.finfo(codes.dtype).tiny)
    noise = torch.rand((a, q, hidden), generator=generator, device=codes.device, dtype=codes.dtype)
    weights = {
        "approximation_weight_1": (2 * noise - 1) * q**-0.5,
        "approximation_bias_1": codes.new_zeros(a, hidden),
        "approximation_weight_2": codes.new_zeros(a, hidden, q),
        "approximation_bias_2": shifts.mean(1),
    }
    parameters = [weight.requires_grad_() for weight in weights.values()]
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=max(1, steps))
    state = {**weights, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    for step in checkpoint.steps("approximation networks", steps, **state):
        rows: Tensor | slice = slice(None)
        if m > _BATCH:
            rows = torch.randint(m, (_BATCH,), generator=generator, device=codes.device)
        errors = (predict_shift(weights, inputs[rows]) - shifts[:, rows]).square().mean((1, 2))
        error = errors.mean()
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        schedule.step()
        each = zip(names, (errors / sizes).unbind(), strict=True)
        checkpoint.log(step, relative_error=error, **dict(each))
    with torch.no_grad():
        weights["approximation_weight_1"] /= size
        weights["approximation_weight_2"] *= shift_size
        weights["approximation_bias_2"] *= shift_size
    return {name: weight.detach() for name, weight in weights.items()}


def _root_mean_square(numbers: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the RMS, never zero, so that it is safe to divide by (a teacher may ignore a view)."""
    return numbers.square().mean().sqrt().clamp_min(torch.finfo(numbers.dtype).tiny)
