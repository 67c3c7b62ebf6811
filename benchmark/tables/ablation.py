"""Ablation: from `krr-st` to `ours`, a component at a time, with the first student."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._grid import (
    at,
    cell,
    conditions,
    describe,
    first_student,
    is_variant,
    main_budget,
    main_downstream,
    protocols,
)
from ._table import Cell, Table

__all__ = ["ablation"]


def ablation(rows: Sequence[Row]) -> list[Table]:
    """Return one table, a column per probe; none if no variant was run."""
    student, budget, dataset = first_student(rows), main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.student == student and row.downstream == dataset and budget == row.N
    ]
    variants = dict.fromkeys(row.label for row in chosen if is_variant(row))
    if not variants:
        return []
    columns = protocols(chosen)
    body = [
        [
            Cell(label),
            *(
                cell([r for r in chosen if r.label == label and _protocol(r) == protocol])
                for protocol in columns
            ),
        ]
        for label in ("krr-st", *variants, "pca", "ours")
    ]
    return [
        Table(
            name="ablation",
            title=f"Ablation{at(budget)}, {student}",
            notes=(
                f"{conditions(chosen)}. Probed on {dataset}. "
                "`pca` is the storage of `ours` without a single outer step."
            ),
            columns=["", *(describe(*protocol) for protocol in columns)],
            body=body,
        )
    ]


def _protocol(row: Row) -> tuple[str, int | None]:
    return row.probe, row.labels_per_class
