"""Random augmentation as batched tensor code: parameters are drawn per image.

It runs on the images' device, without worker processes. Pixels are in [0, 1] before and after.
Random numbers come from the given generator, on its own device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from benchmark.spec import UsageError

_CROP_TRIES = 10  # torchvision, RandomResizedCrop: after as many failures, the whole image

Images = Float[Tensor, "b 3 h w"]
PerImage = Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class RandomAugmentation:
    """The augmentation of self-supervised pretraining at 32x32.

    Random resized crop, flip, colour jitter, greyscale, solarisation, in this order. Differences
    from the published pipeline (on single PIL images): the crop is interpolated bilinearly instead
    of bicubically (it never shrinks, so antialiasing has no effect), the random order of the
    jitter's parts is drawn once per batch instead of once per image, and nothing is rounded to 8
    bits.

    Attributes:
        crop_scale: smallest and largest fraction of the area that a crop keeps.
        crop_ratio: smallest and largest aspect ratio (width : height) of a crop.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness, contrast, saturation: half-width of each factor's range around 1.
        hue: half-width of the shift, in turns.
        gamma: half-width of the range of log gamma; not part of the published pipeline.
        grey: probability of greyscale.
        solarise: probability of inverting all values of at least 0.5.
    """

    crop_scale: tuple[float, ...]
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)  # torchvision
    # solo-learn, scripts/pretrain/cifar/augmentations/asymmetric.yaml; the others: `BarlowTwins`
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gamma: float
    grey: float
    solarise: float

    def __post_init__(self) -> None:
        """Refuse invalid settings.

        Raises:
            UsageError: a range whose ends are not in order, or a number out of range.
        """
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= most:
                raise UsageError(
                    f"{name}={ends}: expected two numbers 0 < least <= greatest <= {most}"
                )
        for name in ("flip", "jitter", "grey", "solarise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name)}: expected a probability")
        for name in ("brightness", "contrast", "saturation", "gamma", "hue"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}={getattr(self, name)}: expected 0 or more")

    def __call__(self, images: Images, generator: torch.Generator) -> Images:
        """Return every image under its own random augmentation."""
        boxes = draw_boxes(images, self.crop_scale, self.crop_ratio, generator)
        x = resized_crop(images, boxes, _chosen(images, self.flip, generator))
        for adjust, factors in self._draw_jitter(x, generator):
            x = adjust(x, factors)
        if self.grey:
            x = torch.where(_chosen(x, self.grey, generator)[:, None, None, None], luma(x), x)
        if self.solarise:
            x = torch.where(
                _chosen(x, self.solarise, generator)[:, None, None, None], solarise(x), x
            )
        return x

    def _draw_jitter(
        self, x: Images, generator: torch.Generator
    ) -> list[tuple[Callable[[Images, PerImage], Images], PerImage]]:
        """Draw each part's factors (neutral for images without jitter), in random order."""
        applied = _chosen(x, self.jitter, generator)
        drawn: list[tuple[Callable[[Images, PerImage], Images], PerImage]] = []
        for adjust, strength in (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
        ):
            if strength:
                factors = _uniform(x, max(0.0, 1 - strength), 1 + strength, generator)
                drawn.append((adjust, torch.where(applied, factors, 1.0)))
        if self.hue:
            shifts = _uniform(x, -self.hue, self.hue, generator)
            drawn.append((adjust_hue, torch.where(applied, shifts, 0.0)))
        if self.gamma:
            logs = _uniform(x, -self.gamma, self.gamma, generator)
            drawn.append((adjust_gamma, torch.where(applied, logs, 0.0).exp()))
        order = torch.randperm(len(drawn), generator=generator, device=generator.device)
        return [drawn[i] for i in order.tolist()]


def draw_boxes(
    images: Images,
    scale: tuple[float, ...],
    ratio: tuple[float, ...],
    generator: torch.Generator,
) -> Int64[Tensor, "b 4"]:
    """Draw top, left, height and width of a crop per image, like torchvision's RandomResizedCrop.

    The area fraction is uniform in `scale`, the logarithm of width : height uniform in that of
    `ratio`; of ten draws the first that fits is used, or the whole image if none does.
    """
    b, h, w = images.shape[0], images.shape[2], images.shape[3]

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return torch.empty(size, device=generator.device).uniform_(low, high, generator=generator)

    area = h * w * uniform(scale[0], scale[1], _CROP_TRIES, b)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), _CROP_TRIES, b).exp()
    heights, widths = (x.sqrt().round().long() for x in (area / aspect, area * aspect))
    fits = (heights > 0) & (heights <= h) & (widths > 0) & (widths <= w)
    first = fits.int().argmax(0, keepdim=True)
    height, width = (
        torch.where(fits.any(0), sizes.gather(0, first)[0], whole)
        for sizes, whole in ((heights, h), (widths, w))
    )
    room = torch.stack([h - height, w - width])
    # a product just below room + 1 may round up to it
    top, left = torch.minimum((uniform(0.0, 1.0, 2, b) * (room + 1)).long(), room)
    return torch.stack([top, left, height, width], 1).to(images.device)


def resized_crop(
    images: Images, boxes: Int64[Tensor, "b 4"], mirrored: Bool[Tensor, " b"]
) -> Images:
    """Return each image's box (top, left, height, width), bilinearly resized to the whole image.

    Sampling is clamped to the box's outer pixel centres, so nothing from outside leaks in. Where
    `mirrored`, the result is flipped horizontally.
    """
    h, w = images.shape[2:]
    top, left, height, width = boxes.to(images.dtype).unbind(1)
    y = _sample_points(top, height, h)
    x = _sample_points(left, width, w)
    x = torch.where(mirrored[:, None], x.flip(1), x)
    grid = torch.stack([x[:, None, :].expand(-1, h, w), y[:, :, None].expand(-1, h, w)], dim=3)
    cropped: Tensor = nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return cropped


def flipped(images: Images, probability: float, generator: torch.Generator) -> Images:
    """Return images, each flipped horizontally with `probability`."""
    chosen = _chosen(images, probability, generator)[:, None, None, None]
    return torch.where(chosen, images.flip(3), images)


def shifted(images: Images, offsets: Int64[Tensor, "b 2"]) -> Images:
    """Return every image moved up and left by its offsets (negative: down, right), zero-padded."""
    h, w = images.shape[2:]
    rows = torch.arange(h, device=images.device) + offsets[:, :1]
    columns = torch.arange(w, device=images.device) + offsets[:, 1:]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images[each, :, rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None, :]]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    return moved.permute(0, 3, 1, 2) * inside[:, None]


def shift_and_flip(images: Images, max_shift: int, generator: torch.Generator) -> Images:
    """Flip half of the images, and shift each by up to `max_shift` pixels, zero-padded."""
    offsets = torch.randint(
        -max_shift,
        max_shift + 1,
        (len(images), 2),
        generator=generator,
        device=generator.device,
    )
    return shifted(flipped(images, 0.5, generator), offsets.to(images.device))


def adjust_brightness(images: Images, factors: PerImage) -> Images:
    """Return images multiplied by their factors."""
    return (images * factors[:, None, None, None]).clamp(0, 1)


def adjust_contrast(images: Images, factors: PerImage) -> Images:
    """Return images scaled about the mean of their luma."""
    return _blend(images, luma(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Images, factors: PerImage) -> Images:
    """Return images scaled about their own luma."""
    return _blend(images, luma(images), factors)


def adjust_gamma(images: Images, exponents: PerImage) -> Images:
    """Return images raised to their exponents."""
    return images.clamp(0, 1) ** exponents[:, None, None, None]


def adjust_hue(images: Images, shifts: PerImage) -> Images:
    """Return images with hues rotated by `shifts` (in turns), at constant HSV value and saturation.

    With value V, chroma C = V - min and hue H in sixths of a turn, the new channels are
    V - C clamp(min(k, 4 - k), 0, 1) for k = (o + H + 6 shift) mod 6 and o = 5, 3, 1 for red, green,
    blue: the closed form of HSV to RGB, in which saturation cancels.
    """
    value, lowest = images.amax(1), images.amin(1)
    chroma = value - lowest
    red, green, blue = images.unbind(1)
    # where chroma is 0, hue is undefined and has no effect
    per_chroma = torch.where(chroma > 0, chroma, 1.0).reciprocal()
    sixths = torch.where(
        value == red,
        (green - blue) * per_chroma,
        torch.where(value == green, 2 + (blue - red) * per_chroma, 4 + (red - green) * per_chroma),
    )
    turned = sixths + 6 * shifts[:, None, None]
    offsets = torch.arange(5, 0, -2, device=images.device, dtype=images.dtype)
    k = torch.remainder(turned[:, None] + offsets[:, None, None], 6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def luma(images: Images) -> Float[Tensor, "b 1 h w"]:
    """Return the ITU-R BT.601 luma, with torchvision's (and PIL's) rounded weights."""
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = red * 0.2989 + green * 0.587 + blue * 0.114
    return grey


def solarise(images: Images) -> Images:
    """Return images with all values of at least 0.5 inverted."""
    return torch.where(images >= 0.5, 1 - images, images)


def _blend(images: Images, other: Float[Tensor, "b 1 _ _"], factors: PerImage) -> Images:
    return torch.lerp(other.expand_as(images), images, factors[:, None, None, None]).clamp(0, 1)


def _sample_points(start: PerImage, length: PerImage, size: int) -> Float[Tensor, "b size"]:
    """Return the coordinates of `size` samples of an interval, for grid_sample."""
    steps = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    inside = (steps * (length / size)[:, None] - 0.5).clamp_min(0)
    pixels = torch.minimum(inside, length[:, None] - 1) + start[:, None]
    return (2 * pixels + 1) / size - 1


def _uniform(
    images: Tensor, low: float, high: float, generator: torch.Generator
) -> Float[Tensor, " b"]:
    drawn = torch.empty(len(images), device=generator.device)
    return drawn.uniform_(low, high, generator=generator).to(images.device)


def _chosen(images: Tensor, probability: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    return _uniform(images, 0.0, 1.0, generator) < probability
