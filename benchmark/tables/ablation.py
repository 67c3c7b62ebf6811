"""Ablation: from `krr-st` to `ours`, one component at a time, with the first student."""

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
    """Return a table for each budget with variants, the main one first, with a column per probe."""
    rows = in_order(rows)
    main, student, dataset = main_budget(rows), first_student(rows), main_downstream(rows)
    mine = [row for row in rows if row.student == student and row.downstream == dataset]
    found = {row.N for row in mine if is_variant(row) and row.N is not None}
    return [
        _table([row for row in mine if budget == row.N], headline=budget == main)
        for budget in sorted(found, key=lambda N: (main != N, N))
    ]


def _table(rows: Sequence[Row], *, headline: bool) -> Table:
    """Return the table of rows of one student, one budget and one dataset."""
    student, budget, dataset = rows[0].student, rows[0].N, rows[0].downstream
    names = ["krr-st", *labels(row for row in rows if is_variant(row)), "pca", "ours"]
    placed = sort_into(protocols(rows), rows, protocol_of)
    columns = {
        describe(protocol): {name: column.get(name, []) for name in names}
        for protocol, column in placed.items()
    }
    ranks = average_ranks(list(map(scores, columns.values())))
    body = fill(columns, names, reference="krr-st", ranks=ranks)
    notes = joined(
        f"{conditions(rows)}.",
        probed_on(dataset),
        "`pca` has the storage format of `ours`, but takes no outer step.",
        "`krr-st` has its own learning rates and lengths; with those of `ours` it is `ours: none "
        "of the three`.",
        legend(body, columns, reference="krr-st"),
        ranks.note,
    )
    return Table(
        name="ablation" if headline else f"ablation-{budget}",
        title=f"Ablation{at(budget)}, {student}",
        notes=notes,
        columns=["", *columns, *ranks.headings],
        body=body,
        headline=headline,
    )
