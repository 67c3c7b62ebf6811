"""AlexNet for small images, with batch norm, as used in dataset distillation."""

from torch import nn

from benchmark.spec import ImageShape

from ._backbone import Backbone, pooled, scaled

__all__ = ["alexnet"]

# Kernel size, channels, and whether the map is halved: AlexNetBN of DSA and KRR-ST.
_LAYERS = ((5, 128, True), (5, 192, True), (3, 256, False), (3, 192, False), (3, 192, True))


def alexnet(shape: ImageShape, *, width: float = 1.0) -> nn.Module:
    """Return five convolutions with batch norm and ReLU, three of them max-pooled, flattened.

    timm has no AlexNet, and torchvision's has an 11x11 stem of stride 4, so this one is our own: at
    32x32 it has 1 843 392 parameters and 3 072 features, as in KRR-ST's evaluation. At 64x64 it is
    the same network with four times the features.

    Args:
        shape: of one image, at least 8x8.
        width: factor on the channels (rounded to multiples of 8).

    Raises:
        UsageError: too small an image, or a width that is not positive.
    """
    h, w = pooled("alexnet", shape, 3)
    channels = scaled([c for _, c, _ in _LAYERS], width)
    layers: list[nn.Module] = []
    for (kernel, _, halved), c_in, c_out in zip(
        _LAYERS, (shape.c, *channels[:-1]), channels, strict=True
    ):
        layers += [
            nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(2)] if halved else []),
        ]
    return Backbone(*layers, nn.Flatten(), num_features=channels[-1] * h * w)
