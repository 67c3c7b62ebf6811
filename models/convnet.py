"""The ConvNet of the distillation literature."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from benchmark.spec import ImageShape, UsageError

from ._backbone import Backbone, pooled
from ._instance_norm import InstanceNorm

__all__ = ["convnet"]

Norm = Literal["batch", "instance", "none"]


def convnet(
    shape: ImageShape,
    *,
    widths: tuple[int, ...] = (128, 256, 512),  # KRR-ST's convnet_128_256_512_bn
    norm: Norm = "batch",
) -> nn.Module:
    """Return blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, flattened at the end.

    The defaults are KRR-ST's inner model (1 480 704 parameters, 8 192 features at 32x32); `widths`
    of 128, 128, 128 with `norm` instance is ConvNet-3 of DSA and successors (299 520 and 2 048).
    The depth is always the length of `widths`: at 64x64 the literature uses a fourth block, which
    must be requested (KRR-ST has widths 64, 128, 256, 512).

    Args:
        shape: of one image.
        widths: channels of each block.
        norm: after every convolution; instance is group norm with one group per channel, as in DSA.

    Raises:
        UsageError: no blocks, one without channels, or more than the image can be halved times.
    """
    if not widths or min(widths) < 1:
        raise UsageError(f"convnet.widths={widths}: expected the channels of one or more blocks")
    h, w = pooled("convnet", shape, len(widths))
    layers: list[nn.Module] = []
    for c_in, c_out in zip((shape.c, *widths), widths, strict=False):
        layers += [
            nn.Conv2d(c_in, c_out, 3, padding=1),
            _norm(norm, c_out),
            nn.ReLU(inplace=True),
            _Halve(),
        ]
    return Backbone(*layers, nn.Flatten(), num_features=widths[-1] * h * w)


class _Halve(nn.Module):
    """2x2 average pooling.

    On a CPU, in the default layout, it is a matrix product: a pair of rows is viewed as one row of
    twice the width, in which every output has four entries. The sums are the same, but several
    times as fast, forward and backward. For channels-last in bf16, see `_Means`.
    """

    keeps_images_apart: ClassVar[bool] = True  # also in training, see `benchmark.memory`

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Return the means of all 2x2 squares; an odd last row or column is dropped."""
        b, c, h, w = x.shape
        if x.device.type != "cpu" or h % 2 or w % 2:
            return avg_pool2d(x, 2)
        if x.is_contiguous():
            squares = torch.eye(w // 2, dtype=x.dtype).repeat_interleave(2, 0).repeat(2, 1) / 4
            return (x.view(-1, 2 * w) @ squares).view(b, c, h // 2, w // 2)
        if x.dtype == torch.bfloat16:
            means: Tensor = _Means.apply(x)
            return means
        return avg_pool2d(x, 2)


class _Means(torch.autograd.Function):
    """2x2 average pooling whose gradient is a single channels-last copy.

    It is bit-identical to PyTorch's, which in bf16 on a CPU adds four strided parts to a tensor of
    zeros and takes two to five times as long; in fp32 it does not.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, g: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = g.shape
        parts = (g / 4).permute(0, 2, 3, 1)[:, :, None, :, None]
        return parts.expand(b, h, 2, w, 2, c).reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def _norm(norm: Norm, channels: int) -> nn.Module:
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return InstanceNorm(channels)
        case "none":
            return nn.Identity()
