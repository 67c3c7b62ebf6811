"""Accuracy against stored bytes, with every method and control on one plot."""

from collections.abc import Sequence
from functools import partial

from benchmark.rows import Row
from benchmark.stored_sets import StoredSets

from ._figure import Figure
from ._tradeoff import compared, draw, in_words

__all__ = ["accuracy_bytes"]


def accuracy_bytes(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure; none if nothing was stored."""
    found = compared(rows, lambda row: row.num_bytes)
    if not found:
        return []
    return [
        Figure(
            name="accuracy-bytes",
            title="Accuracy against stored bytes",
            notes=(
                "Mean and 95 % interval over seeds. Bytes are those of the stored numbers as they "
                "are in the file. What stores nothing is a level; marks of nearly the same cost "
                "stand a little apart."
            ),
            alt="Accuracy against stored bytes. "
            + " ".join(in_words(panel, _kilobytes) for panel in found),
            draw=partial(draw, found, axis="stored bytes", unit="B"),
        )
    ]


def _kilobytes(number: float) -> str:
    return f"{number / 1000:,.0f} kB"
