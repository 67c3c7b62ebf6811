"""Random bases, and the straightforward way to decode images from them."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.compute import Compute
from benchmark.methods._distilled import Bases
from benchmark.spec import ImageShape

from ._setting import normal


def new_bases(compute: Compute, *, m: int, u: int, q: int, d: int, side: int) -> Bases:
    """Return random bases at half resolution, and coefficients of m images under four views."""
    half = side // 2
    return Bases(
        shape=ImageShape(3, side, side),
        image_bases=normal("image bases", u, 3, half, half, compute=compute) / u**0.5,
        image_mean=torch.full((3, half, half), 0.5, device=compute.device),
        image_coefficients=0.2 * normal("image coefficients", m, u, compute=compute),
        target_bases=normal("target bases", q, d, compute=compute) / q**0.5,
        target_mean=normal("target mean", d, compute=compute),
        codes=normal("codes", 4, m, q, compute=compute),
    )


def enlarged(images: Float[Tensor, "b c h2 w2"], side: int) -> Float[Tensor, "b c h w"]:
    """Return images upsampled to full size."""
    return interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
