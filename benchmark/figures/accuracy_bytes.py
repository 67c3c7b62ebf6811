"""Accuracy against stored bytes, with every method and control in one plot."""

from collections.abc import Sequence

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import StoredSets
from benchmark.rows import Row

from ._tradeoff import CostAxis, tradeoffs

__all__ = ["accuracy_bytes"]


def accuracy_bytes(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure for each number of labels; none if nothing was stored."""
    return tradeoffs(
        rows,
        CostAxis(name="stored bytes", unit="B", of=lambda row: row.num_bytes, words=_kilobytes),
        name="accuracy-bytes",
        notes=(
            "Mean and 95 % interval over seeds. Bytes are those of the stored tensors in the file. "
            "Methods that store nothing are horizontal lines. Markers are not displaced: those at "
            "nearly the same size overlap."
        ),
    )


def _kilobytes(number: float) -> str:
    return f"{number / 1000:,.0f} kB"
