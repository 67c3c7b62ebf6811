"""What every method stores and what it takes: numbers, bytes, seconds, memory."""

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmark.rows import Row

from ._grid import conditions, first_student, labels
from ._table import MISSING, Cell, Table, number

__all__ = ["cost"]


def cost(rows: Sequence[Row]) -> list[Table]:
    """Return one table: storage and distillation of each method at each budget, mean over seeds."""
    student = first_student(rows)
    chosen = [row for row in rows if row.student == student]
    body = []
    for label in labels(chosen):
        mine = [row for row in chosen if row.label == label]
        for budget in sorted({row.N for row in mine}, key=lambda N: N or 0):
            body.append(_line(label, [row for row in mine if budget == row.N]))
    if not body:
        return []
    notes = (
        f"{conditions(chosen)}. Means over seeds. Pretraining and probing are those of one "
        f"{student} (features and all probes on all datasets). Peak memory is allocated memory on "
        "a GPU, and what the whole process holds on a CPU."
    )
    return [Table(name="cost", title="Storage and cost", notes=notes, columns=_COLUMNS, body=body)]


_COLUMNS = (
    *("", "N", "images x views", "numbers", "bytes", "distil, s", "peak, MiB"),
    *("student steps", "pretrain, s", "probe, s"),
)


def _line(label: str, rows: Sequence[Row]) -> list[Cell]:
    first = rows[0]
    images = MISSING
    if first.num_images is not None:
        images = Cell(f"{first.num_images} x {first.num_views}", value=first.num_images)
    one_per_dataset = {(row.seed, row.downstream): row for row in rows}.values()
    features_seconds = sum(row.features_seconds for row in one_per_dataset)
    seeds = len({row.seed for row in rows})
    return [
        Cell(label),
        number(first.N, "{}"),
        images,
        _mean(rows, lambda row: row.num_numbers, "{:,.0f}"),
        _mean(rows, lambda row: row.num_bytes, "{:,.0f}"),
        _mean(rows, lambda row: row.distill_seconds, "{:.1f}"),
        _mean(rows, lambda row: row.distill_peak_mib, "{:,.0f}"),
        number(first.student_steps, "{:,}"),
        _mean(rows, lambda row: row.pretrain_seconds, "{:.1f}"),
        number((features_seconds + sum(row.probe_seconds for row in rows)) / seeds, "{:.1f}"),
    ]


def _mean(rows: Sequence[Row], value: Callable[[Row], float | None], form: str) -> Cell:
    found = {row.key: x for row in rows if (x := value(row)) is not None}
    return number(fmean(found.values()) if found else None, form, list(found))
