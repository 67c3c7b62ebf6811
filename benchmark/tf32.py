"""Where a GPU computes in TF32: fp32 whose factors are rounded to 11 significant bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_tf32() -> None:
    """Let a GPU run convolutions, but not matrix products, in TF32, whatever the environment says.

    These are torch's defaults, which `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE` changes; whether the driver
    disables TF32 altogether (`NVIDIA_TF32_OVERRIDE=0`) is part of every key.
    """
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def products_in_tf32() -> Iterator[None]:
    """Let a GPU run matrix products in TF32 within the block, too.

    That rounds nothing off features that a network's last layer computed in bf16, with 8
    significant bits, as ConvNet's does; of a layer norm, as ViT's, which runs in fp32, it does.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def driver_has_tf32() -> bool:
    """Say whether the environment leaves TF32 to programs."""
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
