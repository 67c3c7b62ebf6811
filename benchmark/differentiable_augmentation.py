"""Differentiable siamese augmentation: random operations with gradients with respect to pixels.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021; the
operations go back to Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training",
NeurIPS 2020. One call draws one operation, uniformly, and applies it to the whole batch:

========  ================================================================  ======================
color     x + u - 1/2, then m + (x - m) 2u with m the mean over channels,    u ~ U(0, 1), three
          then m + (x - m) (u + 1/2) with m the mean over the image          independent ones
crop      shift by whole pixels, up to an eighth of the side                 dy, dx uniform
cutout    a square of half the side is zeroed, its centre anywhere           y, x uniform
flip      left to right                                                      probability 1/2
scale     resample at sx, sy times the distance (above 1 shrinks the image)  sx, sy ~ U(1/1.2, 1.2)
rotate    resample                                                           U(-15, 15) degrees
========  ================================================================  ======================

Images are *normalised* (mean 0, standard deviation 1 per channel): the outside is filled with 0,
the mean colour of the dataset, and `color` is in units of the deviation.

*Siamese* means that real and distilled images undergo the same operation with the same parameters:
draw once, apply twice. Otherwise every image of the batch has its own parameters of that
operation::

    augment = draw(generator)
    real, distilled = augment(real), augment(distilled)         # siamese
    images = draw(generator, num=len(images))(images)           # own parameters for every image

Resampling uses `align_corners=True`, the behaviour of torch 1.2, with which the recipe was
published. Later code of this family partly uses today's default. On square images the two agree:
both rotate and scale about the centre, in units of pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from jaxtyping import Float, Float64
from torch import Tensor

from benchmark.spec import unknown

_MAX_SHIFT = 0.125  # of the side
_CUTOUT = 0.5  # of the side
_MAX_SCALE = 1.2
_MAX_ANGLE = 15.0 / 180.0 * math.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """One drawn operation, to be applied to all batches that share it.

    Attributes:
        operation: one of `OPERATIONS`, or None to leave images as they are.
        uniform: three numbers in [0, 1) per image, or one row for all images, from which the
            operation computes its parameters.
    """

    operation: str | None
    uniform: Float64[Tensor, "s 3"]

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return normalised `images` under this augmentation."""
        if self.operation is None:
            return images
        if self.operation in _RESAMPLINGS:
            matrix = _RESAMPLINGS[self.operation](self.uniform).to(images)
            return _resample(images, matrix)
        return _PIXELWISE[self.operation](images, self.uniform)


def draw(
    generator: torch.Generator,
    *,
    num: int = 1,
    operations: Sequence[str] | None = None,
) -> Augmentation:
    """Draw one of `operations` (by default all six; none if empty) and its parameters.

    Args:
        generator: source of all randomness. This synchronises with its device, as the host must
            know the operation; to draw several, use `draw_each`, which synchronises once.
        num: 1 for parameters shared by a whole batch (siamese), else the number of images.
        operations: names from `OPERATIONS`; leave out `flip` for digits.

    Raises:
        UsageError: no operation has that name.
    """
    (drawn,) = draw_each(generator, (num,), operations=operations)
    return drawn


def draw_each(
    generator: torch.Generator,
    nums: Sequence[int],
    *,
    operations: Sequence[str] | None = None,
    device: torch.device | None = None,
) -> list[Augmentation]:
    """Draw an augmentation for each of `nums`, in order; see `draw`.

    Their parameters are on `device`, by default that of the generator.
    """
    operations = OPERATIONS if operations is None else operations
    expect_operations(operations)
    rows = [1 + num for num in nums]
    numbers = torch.rand(
        sum(rows), 3, dtype=torch.float64, generator=generator, device=generator.device
    )
    choices = torch.stack([part[0, 0] for part in numbers.split(rows)]).tolist()
    return [
        Augmentation(
            operation=operations[int(choice * len(operations))] if operations else None,
            uniform=part[1:],
        )
        for choice, part in zip(choices, numbers.to(device).split(rows), strict=True)
    ]


def apply_each(
    augmentations: Sequence[Augmentation], batches: Sequence[Float[Tensor, "_ c h w"]]
) -> list[Float[Tensor, "_ c h w"]]:
    """Return each batch under its own augmentation, with one pass for each operation.

    Args:
        augmentations: one per batch, each with parameters shared by the batch.
        batches: of any sizes.
    """
    augmented: dict[int, Tensor] = {}
    for operation in dict.fromkeys(augment.operation for augment in augmentations):
        mine = [i for i, augment in enumerate(augmentations) if augment.operation == operation]
        sizes = [len(batches[i]) for i in mine]
        uniform = torch.cat(
            [augmentations[i].uniform.expand(size, 3) for i, size in zip(mine, sizes, strict=True)]
        )
        together = Augmentation(operation=operation, uniform=uniform)
        parts = together(torch.cat([batches[i] for i in mine])).split(sizes)
        augmented |= dict(zip(mine, parts, strict=True))
    return [augmented[i] for i in range(len(batches))]


def expect_operations(names: Sequence[str]) -> None:
    """Raise a UsageError unless all of these are operations."""
    for name in names:
        if name not in OPERATIONS:
            raise unknown("augmentation", name, list(OPERATIONS))


def _color(images: Tensor, uniform: Tensor) -> Tensor:
    brightness, saturation, contrast = uniform.to(images).view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    level = images.mean((1, 2, 3), keepdim=True)
    return level + (images - level) * (contrast + 0.5)


def _crop(images: Tensor, uniform: Tensor) -> Tensor:
    for axis, u in ((2, uniform[:, 0]), (3, uniform[:, 1])):
        side = images.shape[axis]
        reach = int(side * _MAX_SHIFT + 0.5)
        shift = (u * (2 * reach + 1)).floor().long().to(images.device) - reach
        source = torch.arange(side, device=images.device) + shift[:, None]
        index = _along(axis, source.clamp(0, side - 1)).expand(images.shape)
        inside = _along(axis, (source >= 0) & (source < side))
        images = images.gather(axis, index) * inside
    return images


def _cutout(images: Tensor, uniform: Tensor) -> Tensor:
    hidden = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, u in ((2, uniform[:, 0]), (3, uniform[:, 1])):
        side = images.shape[axis]
        length = int(side * _CUTOUT + 0.5)
        centre = (u * (side + 1 - length % 2)).floor().long().to(images.device)
        position = torch.arange(side, device=images.device) - (centre - length // 2)[:, None]
        hidden = hidden & _along(axis, (position >= 0) & (position < length))
    return images * ~hidden


def _flip(images: Tensor, uniform: Tensor) -> Tensor:
    flipped = (uniform[:, 0] < 0.5).to(images.device).view(-1, 1, 1, 1)
    return torch.where(flipped, images.flip(3), images)


def _scale(uniform: Tensor) -> Tensor:
    factors = 1 / _MAX_SCALE + uniform[:, :2] * (_MAX_SCALE - 1 / _MAX_SCALE)
    return F.pad(torch.diag_embed(factors), (0, 1))


def _rotate(uniform: Tensor) -> Tensor:
    angle = (2 * uniform[:, 0] - 1) * _MAX_ANGLE
    rows = (angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    return F.pad(torch.stack(rows, 1).view(-1, 2, 2), (0, 1))


def _resample(images: Tensor, matrix: Tensor) -> Tensor:
    matrix = matrix.expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, align_corners=True)


def _along(axis: int, values: Tensor) -> Tensor:
    """Reshape a row of values per image so that it broadcasts along `axis` of the images."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None, :]


_PIXELWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
}
_RESAMPLINGS: dict[str, Callable[[Tensor], Tensor]] = {"scale": _scale, "rotate": _rotate}

OPERATIONS: tuple[str, ...] = (*_PIXELWISE, *_RESAMPLINGS)
