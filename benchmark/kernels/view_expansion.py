"""Every image of a batch under its own predefined view."""

import torch

from benchmark import views
from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome

from ._setting import pixels, stream

__all__ = ["view_expansion"]

_VIEWS = ("identity", "rot90", "rot180", "rot270")


def view_expansion(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the expansion of one batch of a student's pretraining.

    There is no arithmetic. Bytes: images, read and written, and an eight-byte index per pixel,
    which channels share.
    """
    num, side = (12, 8) if small else (1024, 32)
    images = pixels(num, side, compute) / 255
    drawn = torch.randint(len(_VIEWS), (num,), generator=stream("views"))
    permutations = views.permutations(_VIEWS, side, side).to(compute.device)
    chosen = drawn.to(compute.device)

    def fast() -> Outcome:
        return (views.apply_each(permutations[chosen], images),)

    def plain() -> Outcome:
        turned = [torch.rot90(x, k, (1, 2)) for x, k in zip(images, drawn.tolist(), strict=True)]
        return (torch.stack(turned),)

    return Kernel(
        shape=f"{num} images of 3x{side}x{side}, one of four views each",
        fast=fast,
        plain=plain,
        operations={},
        num_bytes=2 * 4 * images.numel() + 8 * num * side**2,
        tolerance=0.0,
        tried=(
            "One gather per batch instead of one rotation per image: no synchronisation and two "
            "launches on a GPU, whatever the batch size. On a CPU a gather reads its index for "
            "every channel, which costs more than moving the pixels."
        ),
    )
