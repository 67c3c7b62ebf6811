"""timm's ResNet with a stem for small images."""

from collections.abc import Sequence

from timm.layers import ConvNormAct
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from benchmark.spec import ImageShape, UsageError


def small_image_resnet(
    model: str,
    *,
    shape: ImageShape,
    widths: Sequence[int],
    blocks: int,
    stem_stride: int,
    stem_padding: int = 1,
    last_width: int | None = None,
) -> nn.Module:
    """Return timm's ResNet of BasicBlocks with a single 3x3 stem convolution and no max-pooling.

    Parameter names are those of torchvision's ResNet. As in timm, convolutions are initialised
    Kaiming-normal (fan-out), and every block as its shortcut (last norm scale zero).

    Args:
        model: name in error messages.
        shape: only its channels matter, as the last map is averaged.
        widths: channels of each stage, one to four; all but the first halve the feature map.
        blocks: BasicBlocks in every stage.
        stem_stride: 1 keeps the resolution, 2 halves it.
        stem_padding: zeros; 2 makes the maps of the first stage two pixels larger.
        last_width: channels of a 1x1 convolution with norm and ReLU after the last stage, or None.

    Raises:
        UsageError: a setting that the architecture does not allow.
    """
    if not 1 <= len(widths) <= 4 or any(width < 2 or width % 2 for width in widths):
        raise UsageError(f"{model}.widths={tuple(widths)}: expected one to four even numbers")
    if blocks < 1 or stem_stride not in (1, 2) or stem_padding < 0:
        raise UsageError(
            f"{model}: blocks={blocks}, stem_stride={stem_stride}, stem_padding={stem_padding}: "
            "expected at least one block, a stride of 1 or 2 and no negative padding"
        )
    # timm fixes the stem at 64 channels unless it is "deep", of which only the width is used.
    resnet = ResNet(
        BasicBlock,
        (blocks,) * len(widths),
        num_classes=0,
        channels=tuple(widths),
        stem_type="deep",
        stem_width=widths[0] // 2,
    )
    resnet.conv1 = nn.Conv2d(shape.c, widths[0], 3, stem_stride, stem_padding, bias=False)
    resnet.maxpool = nn.Identity()
    if last_width is not None:
        if last_width < 1:
            raise UsageError(f"{model}.last_width={last_width}: expected 1 or more channels")
        stage = f"layer{len(widths)}"
        last = ConvNormAct(widths[-1], last_width)
        resnet.add_module(stage, nn.Sequential(resnet.get_submodule(stage), last))
        resnet.num_features = last_width
    for absent in range(len(widths) + 1, 5):
        resnet.add_module(f"layer{absent}", nn.Identity())
    resnet.init_weights()
    backbone: nn.Module = resnet
    return backbone
