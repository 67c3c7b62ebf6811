"""Every method less random images, and less `krr-st`: what is there beyond the noise."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmark.rows import Row

from ._grid import (
    at,
    conditions,
    describe,
    is_variant,
    joined,
    labels,
    main_budget,
    main_downstream,
    protocol_of,
    protocols,
    slug,
    sort_into,
)
from ._marks import baseline, tested
from ._statistics import Samples, less, mean_of, samples_of, summarise
from ._table import NOISE, Cell, Table

__all__ = ["paired"]

_MEAN = "mean"  # over all students
_NOTES = (
    "Mean difference in points and its 95 % interval over equal seeds (and subsets of labels); p "
    "is the probability of such a difference if there is none, after Holm's correction for the "
    f"lines of a column that subtract the same method. {NOISE}: inside the noise."
)

_Column = Mapping[str, Samples]  # by label


def paired(rows: Sequence[Row]) -> list[Table]:
    """Return a table per protocol, a column per student and one for their mean."""
    budget, dataset = main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.downstream == dataset and budget == row.N is not None and not is_variant(row)
    ]
    tables: list[Table] = []
    for protocol in protocols(chosen):
        mine = [row for row in chosen if protocol_of(row) == protocol]
        columns = _columns(mine)
        body = _body(columns, labels(mine), _keys(mine))
        if body:
            tables.append(
                Table(
                    name=f"paired-{slug(*protocol)}",
                    title=f"Paired differences{at(budget)}: {describe(*protocol)}",
                    notes=joined(f"{conditions(mine)}.", f"Probed on {dataset}.", _NOTES),
                    columns=["", *columns],
                    body=body,
                    headline=not tables,
                )
            )
    return tables


def _columns(rows: Sequence[Row]) -> dict[str, _Column]:
    """Return the samples of every student, and their mean where a method has all students."""
    students = list(dict.fromkeys(row.student for row in rows))
    columns: dict[str, _Column] = {
        student: {label: samples_of(mine) for label, mine in column.items()}
        for student, column in sort_into(students, rows, lambda row: row.student).items()
    }
    if len(columns) > 1:
        parts = list(columns.values())
        columns[_MEAN] = {label: mean_of([part[label] for part in parts]) for label in labels(rows)}
    return columns


def _keys(rows: Sequence[Row]) -> dict[tuple[str, str], list[str]]:
    """Return the keys behind each column and label."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        found[row.student, row.label].append(row.key)
        found[_MEAN, row.label].append(row.key)
    return found


def _body(
    columns: Mapping[str, _Column],
    names: Sequence[str],
    keys: Mapping[tuple[str, str], Sequence[str]],
) -> list[list[Cell]]:
    """Return a line for each method and reference, `krr-st` less `random` being there once."""
    body = []
    references = (baseline(names), "krr-st")
    for position, reference in enumerate(references):
        if reference not in names:
            continue
        others = [name for name in names if name not in references[: position + 1]]
        found = [
            tested(
                {name: summarise(less(column[name], column[reference])) for name in others},
                {name: [*keys[student, name], *keys[student, reference]] for name in others},
            )
            for student, column in columns.items()
        ]
        body += [
            [Cell(f"{name} - {reference}"), *(cells[name] for cells in found)] for name in others
        ]
    return body
