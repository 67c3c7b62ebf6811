"""Code shared by hand-made backbones: a flat output of known length, and width scaling."""

from collections.abc import Sequence

from timm.layers import make_divisible
from torch import nn

from benchmark.spec import ImageShape, UsageError


class Backbone(nn.Sequential):
    """Layers that end in flat features, and the number of these."""

    def __init__(self, *layers: nn.Module, num_features: int) -> None:
        super().__init__(*layers)
        self.num_features = num_features


def scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    """Return `channels` times `width`, each rounded to a multiple of 8 and at least 8.

    Raises:
        UsageError: `width` is not positive.
    """
    if width <= 0:
        raise UsageError(f"width={width}: expected a positive number, 1 for the published width")
    return tuple(int(make_divisible(c * width, 8)) for c in channels)


def pooled(model: str, shape: ImageShape, num_pools: int) -> tuple[int, int]:
    """Return height and width of an image after `num_pools` 2x2 poolings of stride 2.

    Raises:
        UsageError: nothing is left of the image.
    """
    h, w = shape.h >> num_pools, shape.w >> num_pools
    if min(h, w) < 1:
        raise UsageError(
            f"{model}: images of {shape.h}x{shape.w} vanish in {num_pools} poolings: "
            f"expected at least {2**num_pools}x{2**num_pools}"
        )
    return h, w
