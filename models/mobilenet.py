"""MobileNetV2 for small images."""

from functools import partial

from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from torch import nn

from benchmark.spec import ImageShape, UsageError

from ._backbone import scaled

__all__ = ["mobilenet"]


def mobilenet(
    shape: ImageShape,
    *,
    width: float = 1.0,
    expansion: int = 2,  # KRR-ST's evaluation network; MobileNetV2's own is 6
    stem_stride: int = 1,
) -> nn.Module:
    """Return timm's MobileNetV2 with the stem and the second stage at stride 1.

    Feature maps at 32x32 are thus 32, 16, 8 and 4 wide instead of 16 down to 1, as in KRR-ST's
    evaluation network. That one (1 079 504 parameters, 1 280 features) has two parts that
    MobileNetV2 lacks: a convolution before the first depthwise one, and shortcuts where a block of
    stride 1 changes its channels (without them, 1 019 264 parameters). ReLU6 and the initialisation
    are timm's. At 64x64 the network is the same on maps twice as large; `stem_stride` 2 then costs
    what 1 does at 32x32.

    Args:
        shape: of one image.
        width: factor on the channels, including the last layer's (rounded to multiples of 8).
        expansion: of the inverted residual blocks.
        stem_stride: 1 or 2.

    Raises:
        UsageError: a setting that the architecture does not allow.
    """
    if expansion < 1 or stem_stride not in (1, 2):
        raise UsageError(
            f"mobilenet: expansion={expansion}, stem_stride={stem_stride}: "
            f"expected an expansion of at least 1 and a stride of 1 or 2"
        )
    (num_features,) = scaled((1280,), width)
    stages = (
        "ds_r1_k3_s1_c16",
        f"ir_r2_k3_s1_e{expansion}_c24",
        f"ir_r3_k3_s2_e{expansion}_c32",
        f"ir_r4_k3_s2_e{expansion}_c64",
        f"ir_r3_k3_s1_e{expansion}_c96",
        f"ir_r3_k3_s2_e{expansion}_c160",
        f"ir_r1_k3_s1_e{expansion}_c320",
    )
    efficientnet = EfficientNet(
        decode_arch_def([[stage] for stage in stages]),
        num_classes=0,
        num_features=num_features,
        in_chans=shape.c,
        round_chs_fn=partial(round_channels, multiplier=width),
        act_layer=nn.ReLU6,
    )
    efficientnet.conv_stem.stride = (stem_stride, stem_stride)  # timm fixes it at 2
    backbone: nn.Module = efficientnet
    return backbone
