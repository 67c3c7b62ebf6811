"""Counts of the work of the supervised peers' steps."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmark.captured import launches
from benchmark.network import Network
from benchmark.spec import Problem
from benchmark.workload import DRAW, TO_IMAGES, Architecture, Work

_DISTANCE = 24  # operators of the distance of one tensor's gradients, and of its gradient
_GATHERING = 10  # operators of drawing and normalising a batch of real images
_REGROUPING = 2  # operators that bring batches with one operation together
# training passes: a gradient of the weights, differentiated with respect to images
_MATCHED = 7 / 3


def classifier(
    problem: Problem, model: str, *, widths: tuple[int, ...] | None, norm: str | None
) -> Architecture:
    """Return the inner model of `_labelled.new_inner_model`."""
    network = Architecture.of(model, problem.num_classes or 0, {"widths": widths, "norm": norm})
    return replace(network, precision="fp32", default_layout=True)


def class_match_work(
    network: Architecture,
    made: Network,
    *,
    k: int,
    ipc: int,
    steps: int,
    real: int,
    augmentations: Sequence[str],
) -> tuple[Work, ...]:
    """Count DSA's outer steps: for each class, a gradient of `real` images, and one to match it."""
    tensors = sum(parameter.ndim >= 2 for parameter in made.parameters())
    return (
        Work(
            network=replace(network, precision=None),  # `_labelled.RealImages.seen_by`
            training=steps * k * real,
            batch=real,
            operators=steps * k * (2 * DRAW * bool(augmentations) + tensors * _DISTANCE),
            captured=True,
            launches=steps * k * launches(num_inputs=4, num_outputs=2),
        ),
        Work(
            network=network,
            training=steps * k * ipc * _MATCHED,
            batch=ipc,
            splits=False,
            captured=True,
        ),
        Work(operators=steps * k * _GATHERING),
    )


def feature_match_work(
    network: Architecture,
    *,
    k: int,
    views: int,
    steps: int,
    real: int,
    chunk: int,
    together: int,
    group: int,
    augmentations: Sequence[str],
) -> tuple[Work, ...]:
    """Count IDM's outer steps: features of `real` images and of the `views` of each of k classes.

    Up to `together` real images are augmented at once, and `chunk` of them pass through the
    network; up to `group` views do both.
    """
    batch = views * min(k, max(1, group // views))
    num = len(augmentations)
    augmenting = _augmenting(k, together // real, num) + 2 * _augmenting(k, group // views, num)
    return (
        Work(
            network=replace(network, precision=None),  # `_labelled.RealImages.seen_by`
            forward=steps * k * real,
            batch=min(chunk, k * real, real * max(1, together // real)),
            operators=steps * (augmenting + k),  # a mean per class
        ),
        Work(network=network, training=steps * k * views * TO_IMAGES, batch=batch, splits=True),
    )


def _augmenting(k: int, group: int, num: int) -> float:
    """Return the operators of augmenting k batches in groups, in a pass for each of `num` drawn."""
    if not num:
        return 0.0
    group = min(k, max(1, group))
    drawn = num * (1 - (1 - 1 / num) ** group)
    return k / group * drawn * (DRAW + _REGROUPING)


def trained(
    network: Architecture, *, steps: int, batch: int, augmentations: Sequence[str] = ()
) -> Work:
    """Count steps of a network on batches, perhaps augmented."""
    around = _GATHERING + DRAW * bool(augmentations)
    return Work(network=network, training=steps * batch, batch=batch, operators=steps * around)


def weight_bytes(network: torch.nn.Module) -> int:
    """Return the bytes of a network's weights."""
    return sum(parameter.numel() * parameter.itemsize for parameter in network.parameters())
