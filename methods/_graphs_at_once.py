"""How many inner steps' graphs trajectory matching may hold within a memory budget."""

from collections.abc import Sequence
from functools import partial

import torch

from benchmark.differentiable_augmentation import Augmentation
from benchmark.memory import peak_bytes

from ._trajectory import FlatNetwork, SoftLabelLoss, SoftSet, cut, match


def graphs_at_once(network: FlatNetwork, batch: Sequence[int], *, num_steps: int) -> int:
    """Return the length of segments for `match`: its default, or fewer steps if these do not fit.

    As for a network pass (`benchmark.memory`), half of the budget is for them. The peaks of one and
    two steps are measured with two and four images, on this machine, and grow linearly from there
    on. Augmentations, the gradients of all images, and a vector of weights for each segment come on
    top. The graph of a single step is never split, so it may exceed the budget.

    Args:
        network: of the inner steps; its budget counts, if it has one.
        batch: [b c h w], the shape of the images in an inner step.
        num_steps: T.
    """
    most, chunks = len(cut(num_steps, None)[-1]), network.network.chunks
    if chunks is None:
        return most
    b, *shape = batch
    whole = network.whole()

    def held(steps: int) -> float:
        two, four = (
            peak_bytes(partial(_matched, whole, (images, *shape), steps=steps)) for images in (2, 4)
        )
        return two + (b - 2) * (four - two) / 2

    one, both = held(1), held(2)
    return min(most, max(1, 1 + int((chunks.memory - one) / max(1.0, both - one))))


def _matched(network: FlatNetwork, batch: Sequence[int], *, steps: int) -> None:
    """Match some steps on images without content, all with one graph."""
    start, head = network.weights, network.network.head
    unchanged = Augmentation(operation=None, uniform=torch.zeros(1, 3, dtype=torch.float64))
    match(
        SoftSet(
            images=start.new_zeros(*batch),
            logits=start.new_zeros(batch[0], head.out_features),
            lr=start.new_ones(()),
        ),
        inner_loss=SoftLabelLoss(
            network=network, batches=[(torch.arange(batch[0]), unchanged)] * steps
        ),
        start=start,
        target=start + 1,
        num_steps=steps,
        keep_every=steps,
    )
