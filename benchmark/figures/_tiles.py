"""Many small images as one."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad


def tiles(images: Float[Tensor, "m c h w"], *, columns: int) -> UInt8[np.ndarray, "H W 4"]:
    """Return images in [0, 1] as a grid with `columns` columns and transparent gaps (alpha 0).

    Grey images become RGB, and the end of an incomplete row is transparent.
    """
    gap = max(1, images.shape[3] // 12)
    m, _, h, w = images.shape
    lines = -(-m // columns)
    opaque = torch.cat([images.expand(-1, 3, -1, -1), images.new_ones(m, 1, h, w)], 1)
    blank = images.new_zeros(lines * columns - m, 4, h, w)
    spaced = pad(torch.cat([opaque, blank]), (0, gap, 0, gap)).unflatten(0, (lines, columns))
    whole = spaced.permute(0, 3, 1, 4, 2).reshape(lines * (h + gap), columns * (w + gap), 4)
    pixels: UInt8[np.ndarray, "H W 4"] = (
        (whole[:-gap, :-gap] * 255).round().to(torch.uint8).cpu().numpy()
    )
    return pixels
