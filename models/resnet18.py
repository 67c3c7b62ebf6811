"""ResNet-18 for small images: the usual teacher, and a student."""

from torch import nn

from benchmark.spec import ImageShape

from ._backbone import scaled
from ._resnet import small_image_resnet

__all__ = ["resnet18"]


def resnet18(
    shape: ImageShape, *, width: float = 1.0, stem_stride: int = 1, stem_padding: int = 1
) -> nn.Module:
    """Return timm's ResNet-18 with a 3x3 stem of stride 1 and no max-pooling.

    11 168 832 parameters and 512 features, as KRR-ST's and DSA's for 32x32; KRR-ST and solo-learn
    pad their stem by 2, which gives maps of 34, 17, 9 and 5 instead of 32, 16, 8 and 4. The network
    is the same at 64x64, on maps twice as large; `stem_stride` 2 then costs what 1 does at 32x32.

    Args:
        shape: of one image.
        width: factor on the channels (rounded to multiples of 8).
        stem_stride: 1 or 2.
        stem_padding: zeros.

    Raises:
        UsageError: an invalid stride or width.
    """
    return small_image_resnet(
        "resnet18",
        shape=shape,
        widths=scaled((64, 128, 256, 512), width),
        blocks=2,
        stem_stride=stem_stride,
        stem_padding=stem_padding,
    )
