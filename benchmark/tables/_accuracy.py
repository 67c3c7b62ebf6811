"""Tables of accuracies: a row for each method, tested against random images, and ranked."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from benchmark.reporting.marks import Column, baseline, judged, legend, scores
from benchmark.reporting.order import (
    conditions,
    describe,
    joined,
    labels,
    protocol_of,
    protocols,
    slug,
)
from benchmark.reporting.published import published
from benchmark.reporting.ranks import Ranks, average_ranks
from benchmark.reporting.seeds import Seeds, seeds_of, usual_seeds
from benchmark.reporting.statistics import samples_of, summarise
from benchmark.reporting.table import MISSING, Cell, Mark, Table, estimated
from benchmark.rows import Row

_C = TypeVar("_C", bound=Hashable)


def _cell(rows: Sequence[Row], *, usual: Seeds, mark: Mark, p: float | None) -> Cell:
    """Return the mean and interval over seeds, and the published number if there is one.

    Args:
        rows: of one number.
        usual: seeds; if they differ, the number of seeds is shown.
        mark: of the cell.
        p: p-value behind the mark.
    """
    estimate = summarise(samples_of(rows))
    if estimate is None:
        return MISSING
    (reference, *others) = {published(row) for row in rows}
    keys = [row.key for row in rows]
    count = "" if seeds_of(rows) == usual else f", n = {estimate.n}"
    if reference is None or others:
        return estimated(estimate, keys, note=count, mark=mark, parts={"p": p})
    gap = estimate.mean - reference
    return estimated(
        estimate,
        keys,
        note=f"{count} (paper {reference:.2f}, {gap:+.2f})",
        mark=mark,
        parts={"p": p, "published": reference, "gap": gap},
    )


def grid(
    rows: Sequence[Row],
    columns: Sequence[str],
    column_of: Callable[[Row], str | None],
    *,
    name: str,
    title: str,
    notes: str = "",
) -> list[Table]:
    """Return a table per protocol, with one row per label.

    Args:
        rows: what the tables are made from.
        columns: their headings.
        column_of: returns the column of a row; None means every column.
        name: of all tables; the protocol is appended.
        title: likewise.
        notes: of all tables, after the conditions.
    """
    tables: list[Table] = []
    for protocol in protocols(rows):
        chosen = [row for row in rows if protocol_of(row) == protocol]
        placed = sort_into(columns, chosen, column_of)
        ranks = average_ranks(list(map(scores, placed.values())))
        reference = baseline(labels(chosen))
        body = fill(placed, labels(chosen), reference=reference, ranks=ranks)
        marked = legend(body, placed, reference=reference)
        tables.append(
            Table(
                name=f"{name}-{slug(protocol)}",
                title=f"{title}: {describe(protocol)}",
                notes=joined(f"{conditions(chosen)}.", notes, marked, ranks.note),
                columns=["", *columns, *ranks.headings],
                body=body,
                headline=not tables,
            )
        )
    return tables


def sort_into(
    columns: Sequence[_C], rows: Sequence[Row], column_of: Callable[[Row], _C | None]
) -> dict[_C, Column]:
    """Return the rows of each column by label; rows whose column is None are in all of them."""
    found: dict[_C, dict[str, list[Row]]] = {
        column: {label: [] for label in labels(rows)} for column in columns
    }
    for row in rows:
        own = column_of(row)
        for column in columns if own is None else (own,):
            found[column][row.label].append(row)
    return dict(found)


def fill(
    columns: Mapping[_C, Column], names: Sequence[str], *, reference: str, ranks: Ranks
) -> list[list[Cell]]:
    """Return a table row per label: a marked number for each column, then the rank if any.

    Args:
        columns: rows by label.
        names: labels in the order of the table's rows.
        reference: the label that others are tested against.
        ranks: of the labels.
    """
    placed = [(column, judged(column, reference=reference)) for column in columns.values()]
    usual = usual_seeds(columns.values())
    return [
        [
            Cell(label),
            *(
                _cell(column.get(label, ()), usual=usual, mark=mark, p=p)
                for column, verdicts in placed
                for mark, p in [verdicts.get(label, ("", None))]
            ),
            *ranks.cells(label),
        ]
        for label in names
    ]
