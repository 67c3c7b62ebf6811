"""Ablation: from `krr-st` to `ours`, a component at a time, with the first student."""

from collections.abc import Sequence

from benchmark.reporting.marks import legend, scores
from benchmark.reporting.order import (
    at,
    conditions,
    describe,
    first_student,
    in_order,
    is_variant,
    joined,
    labels,
    main_budget,
    main_downstream,
    probed_on,
    protocol_of,
    protocols,
)
from benchmark.reporting.ranks import average_ranks
from benchmark.reporting.table import Table
from benchmark.rows import Row

from ._accuracy import fill, sort_into

__all__ = ["ablation"]


def ablation(rows: Sequence[Row]) -> list[Table]:
    """Return one table, a column per probe; none if no variant was run."""
    rows = in_order(rows)
    student, budget, dataset = first_student(rows), main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.student == student and row.downstream == dataset and budget == row.N
    ]
    variants = labels(row for row in chosen if is_variant(row))
    if not variants:
        return []
    names = ["krr-st", *variants, "pca", "ours"]
    placed = sort_into(protocols(chosen), chosen, protocol_of)
    columns = {
        describe(*protocol): {name: column.get(name, []) for name in names}
        for protocol, column in placed.items()
    }
    ranks = average_ranks(list(map(scores, columns.values())))
    body = fill(columns, names, reference="krr-st", ranks=ranks)
    notes = joined(
        f"{conditions(chosen)}.",
        probed_on(dataset),
        "`pca` is the storage of `ours` without a single outer step.",
        "`krr-st` has its own rates and lengths; with those of `ours` it is `ours: none of the "
        "three`.",
        legend(body, columns, reference="krr-st"),
        ranks.note,
    )
    return [
        Table(
            name="ablation",
            title=f"Ablation{at(budget)}, {student}",
            notes=notes,
            columns=["", *columns, *ranks.headings],
            body=body,
        )
    ]
