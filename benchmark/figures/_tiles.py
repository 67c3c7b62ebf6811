"""Many small images as one."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad


def tiles(images: Float[Tensor, "m c h w"], *, columns: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return images in [0, 1] in rows of `columns`, white lines between them.

    Grey images become coloured ones, and rows that are not full are filled with white.
    """
    gap = max(1, images.shape[3] // 12)
    m, _, h, w = images.shape
    lines = -(-m // columns)
    padded = pad(images.expand(-1, 3, -1, -1), (0, gap, 0, gap), value=1.0)
    blank = padded.new_ones(lines * columns - m, 3, h + gap, w + gap)
    grid = torch.cat([padded, blank]).unflatten(0, (lines, columns))
    whole = grid.permute(0, 3, 1, 4, 2).reshape(lines * (h + gap), columns * (w + gap), 3)
    pixels: UInt8[np.ndarray, "H W 3"] = (
        (whole[:-gap, :-gap] * 255).round().to(torch.uint8).cpu().numpy()
    )
    return pixels
