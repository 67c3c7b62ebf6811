"""Predefined augmentations (views): a fixed list that replaces random augmentation.

Random augmentation inside a bilevel problem biases its gradients, so the ICLR 2025 method uses a
fixed list of augmentations: rotations by 90, 180 and 270 degrees. Views are identified by name, so
that the teacher's representations under them can be computed once and stored.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from benchmark.spec import unknown

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "rot180": lambda x: torch.rot90(x, 2, (2, 3)),
    "rot270": lambda x: torch.rot90(x, 3, (2, 3)),
    "flip": lambda x: x.flip(3),
}


def apply(view: str, images: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b c h w"]:
    """Return `images` under one named view (counter-clockwise rotations of square images).

    Raises:
        UsageError: no view has that name.
    """
    expect(view)
    return VIEWS[view](images)


def expect(view: str) -> None:
    """Raise a UsageError unless a view has that name."""
    if view not in VIEWS:
        raise unknown("view", view, list(VIEWS))


def apply_all(
    views: Sequence[str], images: Shaped[Tensor, "b c h w"]
) -> Shaped[Tensor, "vb c h w"]:
    """Return every view of every image, view by view."""
    if tuple(views) == ("identity",):
        return images
    return torch.cat([apply(view, images) for view in views])


def permutations(views: Sequence[str], h: int, w: int) -> Int64[Tensor, "v hw"]:
    """Return each view as a permutation of flat pixels: ``view(x)[i] = x[permutation[i]]``."""
    pixels = torch.arange(h * w).view(1, 1, h, w)
    return torch.stack([apply(view, pixels).flatten() for view in views])


def apply_each(
    permutation: Int64[Tensor, "b hw"], images: Shaped[Tensor, "b c h w"]
) -> Shaped[Tensor, "b c h w"]:
    """Return every image under its own view, given as a permutation of pixels."""
    index = permutation.unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)
