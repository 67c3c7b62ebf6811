"""DATM's initialisation: real images, and experts' logits of them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Logits = Callable[[Int64[Tensor, " b"]], Float[Tensor, "b k"]]
"""One trained expert's logits of real images, given by their rows."""


def draw_correct(
    labels: Int64[Tensor, " n"],
    experts: Sequence[Logits],
    *,
    k: int,
    ipc: int,
    generator: torch.Generator,
) -> Int64[Tensor, " m"]:
    """Return random rows, `ipc` per class and class by class, that experts classify correctly.

    Images that the first expert classifies correctly come first; further experts are used for
    classes with too few of them. Images that no expert classifies correctly come last.
    """
    order = _shuffled(labels, generator)
    shuffled = labels[order]
    everything = torch.ones_like(shuffled, dtype=torch.bool)
    right: Iterator[Tensor] = (logits(order).argmax(1) == shuffled for logits in experts)
    chosen = ~everything
    for eligible in chain(right, [everything]):
        for c in range(k):
            of_class = shuffled == c
            wanted = ipc - int((chosen & of_class).sum())
            chosen[(eligible & of_class & ~chosen).nonzero()[:wanted]] = True
        if int(chosen.sum()) == k * ipc:
            break
    rows = order[chosen]
    return rows[labels[rows].argsort(stable=True)]


def draw_real(
    labels: Int64[Tensor, " n"], *, k: int, ipc: int, generator: torch.Generator
) -> Int64[Tensor, " m"]:
    """Return random rows, `ipc` per class and class by class."""
    return draw_correct(labels, [], k=k, ipc=ipc, generator=generator)


def mean_logits(
    rows: Int64[Tensor, " m"], labels: Int64[Tensor, " m"], experts: Sequence[Logits]
) -> Float[Tensor, "m k"]:
    """Return, for each row, the mean logits of the experts that classify it correctly.

    If there are none, the mean is over all experts.
    """
    said = torch.stack([logits(rows) for logits in experts])
    right = (said.argmax(2) == labels).unsqueeze(2)
    counted = torch.where(right.any(0), right, True)
    return (said * counted).sum(0) / counted.sum(0)


def _shuffled(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    order = torch.randperm(len(labels), generator=generator, device=generator.device)
    return order.to(labels.device)
