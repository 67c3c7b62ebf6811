"""A small vision transformer for small images."""

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmark.spec import ImageShape, UsageError

from ._backbone import scaled

__all__ = ["vit"]

_HEADS = 3


def vit(
    shape: ImageShape, *, width: float = 1.0, depth: int = 12, patch_size: int | None = None
) -> nn.Module:
    """Return timm's VisionTransformer at the size of ViT-Tiny, with small patches.

    192 features (of the class token), 3 heads, 12 layers. ViT-Tiny splits 224x224 into 196 patches
    of 16x16; here a patch's side is an eighth of the image's (4 at 32x32, 8 at 64x64), which gives
    64 patches.

    Args:
        shape: of one image.
        width: factor on the features of each head (64, rounded to multiples of 8).
        depth: layers.
        patch_size: side of a patch; None for an eighth of the image's height.

    Raises:
        UsageError: patches that do not tile the image, or no layer or feature left.
    """
    patch = max(1, shape.h // 8) if patch_size is None else patch_size
    if depth < 1 or patch < 1 or shape.h % patch or shape.w % patch:
        raise UsageError(
            f"vit: depth={depth}, patch_size={patch}: "
            f"expected at least one layer and a side that divides {shape.h}x{shape.w}"
        )
    (head_features,) = scaled((64,), width)
    backbone: nn.Module = VisionTransformer(
        img_size=(shape.h, shape.w),
        patch_size=patch,
        in_chans=shape.c,
        num_classes=0,
        embed_dim=_HEADS * head_features,
        depth=depth,
        num_heads=_HEADS,
    )
    return backbone
