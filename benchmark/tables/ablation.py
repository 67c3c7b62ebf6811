"""Ablation: from `krr-st` to `ours`, a component at a time, with the first student."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._grid import (
    at,
    conditions,
    describe,
    fill,
    first_student,
    is_variant,
    joined,
    main_budget,
    main_downstream,
    protocol_of,
    protocols,
    sort_into,
)
from ._marks import legend
from ._table import Table

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
    columns = sort_into(protocols(chosen), chosen, protocol_of)
    body = fill(columns, ["krr-st", *variants, "pca", "ours"], reference="krr-st")
    notes = joined(
        f"{conditions(chosen)}.",
        f"Probed on {dataset}. `pca` is the storage of `ours` without a single outer step.",
        "`krr-st` has its own rates and lengths; with those of `ours` it is `ours: none of the "
        "three`.",
        legend(body, reference="krr-st"),
    )
    return [
        Table(
            name="ablation",
            title=f"Ablation{at(budget)}, {student}",
            notes=notes,
            columns=["", *(describe(*protocol) for protocol in columns)],
            body=body,
        )
    ]
