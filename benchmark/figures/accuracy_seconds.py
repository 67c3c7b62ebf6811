"""Accuracy against the seconds that distillation took."""

from collections.abc import Sequence

from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import StoredSets
from benchmark.rows import Row

from ._tradeoff import CostAxis, tradeoffs

__all__ = ["accuracy_seconds"]


def accuracy_seconds(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure for each number of labels; none if nothing was distilled."""
    devices = ", ".join(sorted({row.device for row in rows}))
    return tradeoffs(
        rows,
        CostAxis(name="distillation time", unit="s", of=_seconds, words=_rounded),
        name="accuracy-seconds",
        notes=(
            f"Mean and 95 % interval over seeds; time of one distillation on {devices}. Methods "
            "without distillation are horizontal lines. Markers are not displaced: those at nearly "
            "the same time overlap."
        ),
    )


def _seconds(row: Row) -> float | None:
    return row.distill_seconds if row.num_bytes else None


def _rounded(seconds: float) -> str:
    return f"{seconds:.3g} s"
