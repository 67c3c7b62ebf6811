"""A small ResNet: the teacher of suites that need no large accelerator."""

from torch import nn

from benchmark.spec import ImageShape

from ._resnet import small_image_resnet

__all__ = ["resnet_small"]


def resnet_small(
    shape: ImageShape,
    *,
    widths: tuple[int, ...] = (32, 64, 128),
    blocks: int = 1,
    stem_stride: int = 2,
    last_width: int | None = None,
) -> nn.Module:
    """Return timm's ResNet with few, narrow stages, a 3x3 stem and no max-pooling.

    The representation is as long as the last stage is wide, or `last_width`. The defaults are for
    the quick suite; with a fourth stage of 256 and a last width of 512 the network suits CIFAR-100.
    At 32x32 and three channels:

    =============  ===========  ==========  ==========  =====================
    widths         stem_stride  last_width  parameters  multiply-adds (10**6)
    =============  ===========  ==========  ==========  =====================
    32,64,128      2                  none     307 360                   12.3
    32,64,128      1                  none     307 360                   49.1
    32,64,128,256  2                  none   1 226 400                   15.9
    32,64,128,256  1                  none   1 226 400                   63.8
    32,64,128,256  2                   512   1 358 496                   16.5
    =============  ===========  ==========  ==========  =====================

    Args:
        shape: of one image.
        widths: channels of each stage, one to four even numbers; all but the first halve the map.
        blocks: BasicBlocks in every stage.
        stem_stride: 1 keeps the resolution, 2 halves it.
        last_width: channels of a 1x1 convolution, norm and ReLU after the last stage, as in
            MobileNetV2 (CVPR 2018): more features at hardly any cost. None: no such layer.

    Raises:
        UsageError: a setting that the architecture does not allow.
    """
    return small_image_resnet(
        "resnet-small",
        shape=shape,
        widths=widths,
        blocks=blocks,
        stem_stride=stem_stride,
        last_width=last_width,
    )
