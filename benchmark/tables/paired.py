"""Paired differences of every method from random images, and from `krr-st`, with tests."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmark.reporting.marks import baseline, tested_columns, unproven
from benchmark.reporting.order import (
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
    own_student,
    protocol_of,
    protocols,
    slug,
    students,
)
from benchmark.reporting.statistics import Samples, less, mean_of, samples_of, summarise
from benchmark.reporting.table import NOISE, Cell, Table
from benchmark.rows import Row

from ._accuracy import sort_into

__all__ = ["paired"]

_MEAN = None  # the column of the mean over students, as a student may have any name
_NOTES = (
    "Mean paired difference in points, with its 95 % interval over seeds (and label subsets). p: "
    "p-value, with Holm's correction over the rows of a column that subtract the same method on "
    f"one dataset. {NOISE}: not significant."
)

_Columns = dict[str | None, Mapping[str, Samples]]  # by heading, then by label
_Keys = dict[tuple[str | None, str], list[str]]


def paired(rows: Sequence[Row]) -> list[Table]:
    """Return two tables per protocol, covering every dataset: by student, and by budget.

    The former is for the main budget, the latter for the first student.
    """
    chosen = [
        row
        for row in in_order(rows)
        if row.N is not None and own_student(row) is not None and not is_variant(row)
    ]
    budget, student = main_budget(chosen), first_student(chosen)
    tables: list[Table] = []
    for protocol in protocols(chosen):
        mine = [row for row in chosen if protocol_of(row) == protocol]
        main = [row for row in mine if budget == row.N]
        first = [row for row in mine if row.student == student]
        found = [
            _table(
                f"paired-{slug(protocol)}",
                f"Paired differences{at(budget)}: {describe(protocol)}",
                rows=main,
                column_of=lambda row: row.student,
                headings=students(main),
            ),
            _table(
                f"paired-by-budget-{slug(protocol)}",
                f"Paired differences by budget, {student}: {describe(protocol)}",
                rows=first,
                column_of=lambda row: f"N = {row.N}",
                headings=[f"N = {N}" for N in sorted({row.N or 0 for row in first})],
            ),
        ]
        leads = not tables
        several = len({row.N for row in first}) > 1
        tables += [replace(table, headline=leads) for table in found[: 1 + several] if table.body]
    return tables


def _table(
    name: str,
    title: str,
    *,
    rows: Sequence[Row],
    column_of: Callable[[Row], str],
    headings: Sequence[str],
) -> Table:
    """Return a table with a row per pair of methods and dataset, and a mean of several students."""
    has_mean = len(students(rows)) > 1
    body = []
    for dataset in datasets(rows):
        mine = [row for row in rows if row.downstream == dataset]
        columns: _Columns = {
            heading: {label: samples_of(found) for label, found in column.items()}
            for heading, column in sort_into(headings, mine, column_of).items()
        }
        keys = _keys(mine, column_of)
        if has_mean:
            parts = list(columns.values())
            columns[_MEAN] = {
                label: mean_of([part[label] for part in parts]) for label in labels(mine)
            }
            keys |= _keys(mine, lambda row: _MEAN)
        lines = _lines(columns, labels(mine), keys)
        body += [[Cell(line), Cell(dataset), *cells] for line, cells in lines]
    mean = "mean of all" if "mean" in headings else "mean"
    return Table(
        name=name,
        title=title,
        notes=joined(f"{conditions(rows)}.", _NOTES, unproven(body)),
        columns=["", "probed on", *headings, *([mean] if has_mean else [])],
        body=body,
    )


def _keys(rows: Sequence[Row], column_of: Callable[[Row], str | None]) -> _Keys:
    """Return the keys behind each column and label."""
    found: _Keys = defaultdict(list)
    for row in rows:
        found[column_of(row), row.label].append(row.key)
    return found


def _lines(
    columns: _Columns, names: Sequence[str], keys: _Keys
) -> Iterator[tuple[str, list[Cell]]]:
    """Yield the name and cells of each method minus each reference, if there are any numbers.

    `krr-st` minus `random` appears once.
    """
    references = (baseline(names), "krr-st")
    for position, reference in enumerate(references):
        others = [name for name in names if name not in references[: position + 1]]
        found = tested_columns(
            {
                name: (
                    summarise(less(column[name], column.get(reference, {}))),
                    [*keys.get((heading, name), ()), *keys.get((heading, reference), ())],
                )
                for name in others
            }
            for heading, column in columns.items()
        )
        for name in others:
            cells = [cells[name] for cells in found]
            if any(cell.value is not None for cell in cells):
                yield f"{name} - {reference}", cells
