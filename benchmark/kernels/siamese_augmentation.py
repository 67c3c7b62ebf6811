"""Differentiable siamese augmentation of real and distilled images: all six operations in turn."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from benchmark.compute import Compute
from benchmark.differentiable_augmentation import OPERATIONS, Augmentation
from benchmark.kernel import Kernel, Outcome

from ._setting import normal, stream

__all__ = ["siamese_augmentation"]

Images = Float[Tensor, "b c h w"]
Uniform = Float64[Tensor, "1 3"]


def siamese_augmentation(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the augmentation of a DSA class with ten distilled images, once by each operation.

    There are no products. Bytes: all images, read and written once by each operation.
    """
    num_real, ipc, side = (6, 2, 8) if small else (256, 10, 32)
    batches = [
        normal(name, num, 3, side, side, compute=compute)
        for name, num in (("real", num_real), ("distilled", ipc))
    ]
    uniform = torch.rand(1, 3, dtype=torch.float64, generator=stream("augmentation"))
    there = uniform.to(compute.device)

    def fast() -> Outcome:
        drawn = [Augmentation(operation=name, uniform=there) for name in OPERATIONS]
        return tuple(augment(images) for augment in drawn for images in batches)

    def plain() -> Outcome:
        return tuple(_PLAIN[name](images, uniform) for name in OPERATIONS for images in batches)

    return Kernel(
        shape=f"{num_real} real and {ipc} distilled images of 3x{side}x{side}, six operations",
        fast=fast,
        plain=plain,
        operations={},
        num_bytes=len(OPERATIONS) * 2 * 4 * sum(images.numel() for images in batches),
        tolerance=1e-5,
        tried=(
            "Crops gather rows, then columns, instead of indexing every pixel of every image; "
            "cutout multiplies by two small masks instead of a scattered one."
        ),
    )


def _color(images: Images, uniform: Uniform) -> Images:
    brightness, saturation, contrast = uniform[0].tolist()
    images = images + (brightness - 0.5)
    mean = images.mean(dim=1, keepdim=True)
    images = (images - mean) * (2 * saturation) + mean
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    adjusted: Images = (images - mean) * (contrast + 0.5) + mean
    return adjusted


def _crop(images: Images, uniform: Uniform) -> Images:
    b, _, h, w = images.shape
    reach_y, reach_x = (int(side / 8 + 0.5) for side in (h, w))
    y = int(uniform[0, 0] * (2 * reach_y + 1))
    x = int(uniform[0, 1] * (2 * reach_x + 1))
    padded = pad(images, (reach_x, reach_x, reach_y, reach_y)).permute(0, 2, 3, 1)
    each, rows, columns = _grid(b, h, w, images.device)
    return padded[each, rows + y, columns + x].permute(0, 3, 1, 2)


def _cutout(images: Images, uniform: Uniform) -> Images:
    b, _, h, w = images.shape
    height, width = int(h / 2 + 0.5), int(w / 2 + 0.5)
    y = int(uniform[0, 0] * (h + 1 - height % 2)) - height // 2
    x = int(uniform[0, 1] * (w + 1 - width % 2)) - width // 2
    each, rows, columns = _grid(b, height, width, images.device)
    inside_y, inside_x = (rows + y).clamp(0, h - 1), (columns + x).clamp(0, w - 1)
    mask = torch.ones(b, h, w, device=images.device)
    mask[each, inside_y, inside_x] = 0
    return images * mask.unsqueeze(1)


def _flip(images: Images, uniform: Uniform) -> Images:
    chosen = (uniform[:, 0] < 0.5).to(images.device).expand(len(images)).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)


def _scale(images: Images, uniform: Uniform) -> Images:
    x, y = (1 / 1.2 + uniform[0, :2] * (1.2 - 1 / 1.2)).tolist()
    return _resample(images, [[x, 0.0, 0.0], [0.0, y, 0.0]])


def _rotate(images: Images, uniform: Uniform) -> Images:
    angle = torch.deg2rad((2 * uniform[0, 0] - 1) * 15)
    cosine, sine = float(angle.cos()), float(angle.sin())
    return _resample(images, [[cosine, -sine, 0.0], [sine, cosine, 0.0]])


def _resample(images: Images, rows: list[list[float]]) -> Images:
    matrices = torch.tensor([rows] * len(images), device=images.device)
    grid = affine_grid(matrices, list(images.shape), align_corners=True)
    return grid_sample(images, grid, align_corners=True)


def _grid(b: int, h: int, w: int, device: torch.device) -> tuple[Tensor, ...]:
    axes = [torch.arange(size, device=device) for size in (b, h, w)]
    return torch.meshgrid(axes, indexing="ij")


_PLAIN: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
