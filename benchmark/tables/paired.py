"""Every method less random images, and less `krr-st`: what is there beyond the noise."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from benchmark.rows import Row

from ._accuracy import sort_into
from ._grid import (
    at,
    conditions,
    datasets,
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
    slug,
    students,
)
from ._marks import baseline, tested, unproven
from ._statistics import Samples, less, mean_of, samples_of, summarise
from ._table import NOISE, Cell, Table

__all__ = ["paired"]

_MEAN = "mean"  # over all students
_NOTES = (
    "Mean difference in points and its 95 % interval over equal seeds (and subsets of labels); p "
    "is the probability of such a difference if there is none, after Holm's correction for the "
    f"lines of a column that subtract the same method{{}}. {NOISE}: inside the noise."
)

_C = TypeVar("_C", bound=Hashable)
_Columns = Mapping[_C, Mapping[str, Samples]]  # by heading, then by label
_Keys = Mapping[tuple[_C, str], Sequence[str]]


def paired(rows: Sequence[Row]) -> list[Table]:
    """Return two tables per protocol: by student, and by budget and dataset.

    The former is of the main budget and dataset, the latter of the first student.
    """
    chosen = [
        row
        for row in in_order(rows)
        if row.N is not None and row.student != "teacher" and not is_variant(row)
    ]
    budget, dataset, student = main_budget(chosen), main_downstream(chosen), first_student(chosen)
    tables: list[Table] = []
    for protocol in protocols(chosen):
        mine = [row for row in chosen if protocol_of(row) == protocol]
        main = [row for row in mine if row.downstream == dataset and budget == row.N]
        found = [
            *_by_student(main, f"Paired differences{at(budget)}: {describe(*protocol)}"),
            *_by_budget(
                [row for row in mine if row.student == student],
                f"Paired differences by budget, {student}: {describe(*protocol)}",
            ),
        ]
        leads = not tables
        tables += [replace(table, headline=leads) for table in found if table.body]
    return tables


def _by_student(rows: Sequence[Row], title: str) -> list[Table]:
    """Return a line for each pair of methods, a column per student and one for their mean."""
    if not rows:
        return []
    columns: dict[str, Mapping[str, Samples]] = {
        student: {label: samples_of(mine) for label, mine in column.items()}
        for student, column in sort_into(students(rows), rows, lambda row: row.student).items()
    }
    keys = _keys(rows, lambda row: row.student)
    if len(columns) > 1:
        parts = list(columns.values())
        columns[_MEAN] = {label: mean_of([part[label] for part in parts]) for label in labels(rows)}
        keys |= _keys(rows, lambda row: _MEAN)
    body = [[Cell(name), *cells] for name, cells in _lines(columns, labels(rows), keys)]
    return [
        Table(
            name=f"paired-{slug(*protocol_of(rows[0]))}",
            title=title,
            notes=joined(
                f"{conditions(rows)}.",
                probed_on(rows[0].downstream),
                _NOTES.format(""),
                unproven(body),
            ),
            columns=["", *columns],
            body=body,
        )
    ]


def _by_budget(rows: Sequence[Row], title: str) -> list[Table]:
    """Return a line for each pair of methods and dataset, a column per budget, if several are."""
    budgets = sorted({row.N for row in rows if row.N is not None})
    if len(budgets) * len(datasets(rows)) < 2:
        return []
    body = []
    for dataset in datasets(rows):
        mine = [row for row in rows if row.downstream == dataset]
        columns: dict[int | None, Mapping[str, Samples]] = {
            N: {label: samples_of(found) for label, found in column.items()}
            for N, column in sort_into(budgets, mine, lambda row: row.N).items()
        }
        keys = _keys(mine, lambda row: row.N)
        lines = _lines(columns, labels(mine), keys)
        body += [[Cell(name), Cell(dataset), *cells] for name, cells in lines]
    return [
        Table(
            name=f"paired-by-budget-{slug(*protocol_of(rows[0]))}",
            title=title,
            notes=joined(f"{conditions(rows)}.", _NOTES.format(" on one dataset"), unproven(body)),
            columns=["", "probed on", *(f"N = {N}" for N in budgets)],
            body=body,
        )
    ]


def _keys(rows: Sequence[Row], column_of: Callable[[Row], _C]) -> dict[tuple[_C, str], list[str]]:
    """Return the keys behind each column and label."""
    found: dict[tuple[_C, str], list[str]] = defaultdict(list)
    for row in rows:
        found[column_of(row), row.label].append(row.key)
    return found


def _lines(
    columns: _Columns[_C], names: Sequence[str], keys: _Keys[_C]
) -> Iterator[tuple[str, list[Cell]]]:
    """Yield the name and cells of each method less each reference, those that are anywhere.

    `krr-st` less `random` is there once.
    """
    references = (baseline(names), "krr-st")
    for position, reference in enumerate(references):
        others = [name for name in names if name not in references[: position + 1]]
        found = [
            tested(
                {name: summarise(less(column[name], column.get(reference, {}))) for name in others},
                {
                    name: [*keys.get((heading, name), ()), *keys.get((heading, reference), ())]
                    for name in others
                },
            )
            for heading, column in columns.items()
        ]
        for name in others:
            cells = [cells[name] for cells in found]
            if any(cell.value is not None for cell in cells):
                yield f"{name} - {reference}", cells
