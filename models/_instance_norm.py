"""Instance normalisation with a second derivative in closed form.

PyTorch computes second derivatives of group normalisation through a chain of elementwise
operations, each over all pixels: a quarter of the time of a gradient through training steps
(`python -m benchmark time --only trajectory-unroll`). Here the gradient stays one fused kernel, and
its own gradient is two batched products.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["InstanceNorm"]

_CACHED = 2**22  # bytes of temporaries that a CPU keeps in its cache: larger take twice as long


class InstanceNorm(nn.GroupNorm):
    """`nn.GroupNorm` with one group per channel, differentiable at most twice."""

    keeps_images_apart: ClassVar[bool] = True  # also in training, see `benchmark.memory`

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return each channel of each image with mean 0 and variance 1, scaled and shifted."""
        if input.device.type != "cpu":
            input = input.contiguous()  # as other devices' kernels need it before torch 2.14
        normalised: Tensor = _Normalise.apply(input, self.weight, self.bias, self.eps)
        return normalised


class _Normalise(torch.autograd.Function):
    """y = weight n + bias, where n = (x - mean) rstd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, rstd = _normalised(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (*_Gradient.apply(g, *ctx.saved_tensors), None)


class _Gradient(torch.autograd.Function):
    """The gradient of `_Normalise`, given `g` at y; `mean` and `rstd` are those of x.

    With <.> for averages over the pixels of one channel of one image, and u = weight g ::

        dx = rstd (u - <u> - n <u n>)      dweight = sum g n      dbias = sum g
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(g, x, weight, mean, rstd)
        return _gradient(g.contiguous(), x, weight, mean, rstd)

    @staticmethod
    def backward(ctx: Any, p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("InstanceNorm has no third derivative: leave out create_graph")
        g, x, weight, mean, rstd = ctx.saved_tensors
        at_g, at_x, at_weight = torch.empty_like(g), torch.empty_like(x), torch.zeros_like(weight)
        size = len(x)
        if x.device.type == "cpu":
            size = max(1, _CACHED // (3 * mean.element_size() * x[0].numel()))
        with torch.autocast(p.device.type, enabled=False):
            for first in range(0, len(x), size):
                rows = slice(first, first + size)
                at_g[rows], at_x[rows], part = _second_gradient(
                    p[rows], q, r, g[rows], x[rows], weight, mean[rows], rstd[rows]
                )
                at_weight += part
        return at_g, at_x, at_weight, None, None


def _normalised(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Return y, and mean and rstd of x in the weights' dtype."""
    b, c, h, w = x.shape
    if not _as_channels(x, weight):
        return torch.native_group_norm(x, weight, bias, b, c, h * w, c, eps)
    y, mean, rstd = torch.native_batch_norm(
        x.view(1, b * c, h, w), weight.repeat(b), bias.repeat(b), None, None, True, 0.0, eps
    )
    return y.view(x.shape), mean.view(b, c), rstd.view(b, c)


def _gradient(
    g: Float[Tensor, "b c h w"],
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, " c"],
    mean: Float[Tensor, "b c"],
    rstd: Float[Tensor, "b c"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return the gradient at x, weight and bias."""
    b, c, h, w = x.shape
    wanted = [True, True, True]
    if not _as_channels(x, weight):
        gradient: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm_backward(
            g, x, mean, rstd, weight, b, c, h * w, c, wanted
        )
        return gradient
    images, upstream = (y.view(1, b * c, h, w) for y in (x, g))
    of_channels = (weight.repeat(b), None, None, mean.flatten(), rstd.flatten())
    eps = 0.0  # is in rstd already
    at_x, at_weight, at_bias = torch.ops.aten.native_batch_norm_backward(
        upstream, images, *of_channels, True, eps, wanted
    )
    return at_x.view(x.shape), at_weight.view(b, c).sum(0), at_bias.view(b, c).sum(0)


def _as_channels(x: Tensor, weight: Tensor) -> bool:
    """Say whether each channel of each image is normalised as a channel of one image.

    Only a CPU's group norm takes images of another dtype than its weights, but any batch norm does.
    """
    return x.dtype != weight.dtype and x.device.type != "cpu"


def _second_gradient(
    p: Float[Tensor, "b c h w"],
    q: Float[Tensor, " c"],
    r: Float[Tensor, " c"],
    g: Float[Tensor, "b c h w"],
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, " c"],
    mean: Float[Tensor, "b c"],
    rstd: Float[Tensor, "b c"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"], Float[Tensor, " c"]]:
    """Return the gradient of p dx + q dweight + r dbias, summed over their entries.

    With s = rstd weight and m = q - s <p n>, it is ::

        at g:       s p + m n + r - s <p>
        at x:       rstd (m g - s <g n> p - k n - m <g> + s <p> <g n>)
        at weight:  sum rstd (<p g> - <p> <g> - <p n> <g n>)
        where       k = m <g n> + s (<p g> - <p> <g> - 2 <p n> <g n>)
    """
    mean, rstd = mean[:, :, None], rstd[:, :, None]
    parts = torch.stack([part.flatten(2).to(rstd.dtype) for part in (p, g, x)], 2)
    n = parts[:, :, 2].sub_(mean).mul_(rstd)
    num_pixels = n.shape[-1]
    products = parts @ parts.mT / num_pixels
    pg, pn, gn = (products[:, :, i, j, None] for i, j in ((0, 1), (0, 2), (1, 2)))
    mean_p, mean_g, _ = parts.mean(-1, keepdim=True).unbind(2)
    s = rstd * weight[:, None]
    m = q[:, None] - s * pn
    at_weight = pg - mean_p * mean_g - pn * gn
    k = m * gn + s * (at_weight - pn * gn)
    factors = (
        torch.cat([s, torch.zeros_like(s), m], -1),
        rstd * torch.cat([-s * gn, m, -k], -1),
    )
    constants = (r[:, None] - s * mean_p, rstd * (s * mean_p * gn - m * mean_g))
    combined = (torch.stack(factors, 2) @ parts).add_(torch.stack(constants, 2))
    at_g, at_x = combined.unbind(2)
    return at_g.view(g.shape), at_x.view(x.shape), (rstd * at_weight).sum((0, 2)) * num_pixels
