"""Accuracy against the seconds that distillation took."""

from collections.abc import Sequence
from functools import partial

from benchmark.rows import Row
from benchmark.stored_sets import StoredSets

from ._figure import Figure
from ._tradeoff import compared, draw, in_words

__all__ = ["accuracy_seconds"]


def accuracy_seconds(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure; none if nothing was distilled."""
    found = compared(rows, _seconds)
    if not found:
        return []
    devices = ", ".join(sorted({row.device for row in rows}))
    return [
        Figure(
            name="accuracy-seconds",
            title="Accuracy against distillation seconds",
            notes=(
                f"Mean and 95 % interval over seeds; seconds are of one distillation on {devices}. "
                "What is not distilled is a level; marks of nearly the same cost stand a little "
                "apart."
            ),
            alt="Accuracy against seconds of distillation. "
            + " ".join(in_words(panel, _rounded) for panel in found),
            draw=partial(draw, found, axis="distillation time", unit="s"),
        )
    ]


def _seconds(row: Row) -> float | None:
    return row.distill_seconds if row.num_bytes else None


def _rounded(seconds: float) -> str:
    return f"{seconds:.3g} s"
