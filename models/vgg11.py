"""VGG-11 with batch norm for small images."""

from timm.models.vgg import VGG, cfgs
from torch import nn

from benchmark.spec import ImageShape

from ._backbone import Backbone, pooled, scaled

__all__ = ["vgg11"]


def vgg11(shape: ImageShape, *, width: float = 1.0) -> nn.Module:
    """Return the convolutions of timm's vgg11_bn, with global average pooling.

    The ImageNet head, two layers of 4 096 with over nine tenths of the weights, is dropped. What
    remains is KRR-ST's VGG11: 9 225 984 parameters, 512 features. The five max-poolings leave one
    position at 32x32 and four at 64x64. Weights are initialised as in timm (Kaiming-normal,
    fan-out), KRR-ST's by PyTorch's default.

    Args:
        shape: of one image, at least 32x32.
        width: factor on the channels (rounded to multiples of 8).

    Raises:
        UsageError: too small an image, or a width that is not positive.
    """
    plan = cfgs["vgg11"]
    pooled("vgg11", shape, plan.count("M"))
    channels = iter(scaled([c for c in plan if c != "M"], width))
    vgg = VGG(
        [c if c == "M" else next(channels) for c in plan],
        num_classes=0,
        in_chans=shape.c,
        norm_layer=nn.BatchNorm2d,
        mlp_ratio=1 / 4096,  # so that the dropped head takes no time to make
    )
    return Backbone(
        vgg.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), num_features=vgg.num_features
    )
