"""Narrow 1x1 convolutions with a stride, as subsampling and a convolution without one.

Both are the same map. But oneDNN, by which torch convolves on a CPU, writes beyond its buffer in
the backward pass of the former, still in its version 3.12 (uxlfoundation/oneDNN, issue 6035): where
images are channels-last, with fewer channels than fill a vector register, and depending on how a
batch is split, mostly over several threads. The process then dies, or numbers are overwritten.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

_ENOUGH = 16  # channels: 512 bits of fp32


def subsample_first(backbone: nn.Module) -> None:
    """Replace the stride of narrow 1x1 convolutions by subsampling before them, in place."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and _is_concerned(module):
            module.register_forward_pre_hook(partial(_subsample, stride=module.stride))
            module.stride = (1, 1)


def _is_concerned(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride != (1, 1)
        and conv.padding in ((0, 0), "valid")
        and conv.in_channels // conv.groups < _ENOUGH
    )


def _subsample(_: nn.Module, inputs: tuple[Any, ...], *, stride: tuple[int, ...]) -> Tensor:
    images: Tensor = inputs[0]
    return images[..., :: stride[0], :: stride[1]]
