"""One step at a time: from untrained students to `ours`, one ingredient after another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmark.reporting.marks import tested_columns, unproven
from benchmark.reporting.order import (
    at,
    conditions,
    datasets,
    describe,
    first_student,
    in_order,
    joined,
    labels,
    main_budget,
    own_student,
    protocol_of,
    protocols,
    students,
)
from benchmark.reporting.statistics import Estimate, less, mean_of, samples_of, summarise
from benchmark.reporting.table import NOISE, Cell, Table
from benchmark.rows import Row

from ._accuracy import sort_into

__all__ = ["ladder"]

_NONE, _BASES = "ours: none of the three", "ours: bases only"

# Each asks whether the first is better than the second.
_STEPS = (
    ("random", "untrained"),  # pretraining on anything
    ("krr-st", "random"),  # outer steps on plain pairs
    ("ours", "krr-st"),  # all new components
    (_BASES, _NONE),  # bases
    ("ours", _BASES),  # views and their networks
    ("pca", "random-bytes"),  # bases against real images of the same bytes
    ("ours", "random-bytes"),
    ("ours", "pca"),  # outer steps on bases, with the same storage
)

_NOTES = (
    "Mean paired difference in points, with its 95 % interval over seeds (and label subsets). p: "
    "p-value, with Holm's correction over the rows of a column on one dataset. "
    f"{NOISE}: not significant. `pca` has the storage format of `ours`, but takes no outer step."
)
_SOME_STUDENTS = "A mean of students is over those that have numbers of both methods."


@dataclass(frozen=True, kw_only=True)
class _Gap:
    """A paired difference in the mean of several students, and the keys of the rows behind it."""

    mean: Estimate | None
    is_of_some: bool  # not of all students
    keys: Sequence[str]


def ladder(rows: Sequence[Row]) -> list[Table]:
    """Return a table of differences for each budget, the main one first.

    It has a column per probe for the first student and, if there are several, for the mean of all
    students that have numbers of both methods.
    """
    rows = [row for row in in_order(rows) if own_student(row) is not None]
    main, student = main_budget(rows), first_student(rows)
    others = sorted({row.N for row in rows if row.N is not None} - {main})
    tables = []
    for budget in (main, *others):
        name = "ladder" if budget == main else f"ladder-{budget}"
        table = _table(
            name,
            f"One step at a time{at(budget)}",
            rows=[row for row in rows if row.N in (None, budget)],
            student=student,
        )
        if table.body:
            tables.append(replace(table, headline=budget == main))
    return tables


def _table(name: str, title: str, *, rows: Sequence[Row], student: str | None) -> Table:
    """Return the comparisons that `rows`, of one budget, allow."""
    found = set(labels(rows))
    lines = [pair for pair in _STEPS if found.issuperset(pair)]
    compared = students([row for row in rows if row.N is not None])
    columns = [
        (protocol, who)
        for protocol in protocols(rows)
        for who in ([student], compared)[: min(2, len(compared))]
    ]
    body, of_some = [], False
    for dataset in datasets(rows):
        mine = [row for row in rows if row.downstream == dataset]
        gaps = [
            _gaps(
                [row for row in mine if protocol_of(row) == protocol and row.student in who], lines
            )
            for protocol, who in columns
        ]
        cells = tested_columns(
            {pair: (gap.mean, gap.keys) for pair, gap in column.items()} for column in gaps
        )
        of_some |= any(gap.mean and gap.is_of_some for column in gaps for gap in column.values())
        for above, below in lines:
            line = [column[above, below] for column in cells]
            if any(cell.value is not None for cell in line):
                body.append([Cell(f"{above} - {below}"), Cell(dataset), *line])
    headings = [
        f"{describe(protocol)}: {student if len(who) == 1 else 'mean of students'}"
        for protocol, who in columns
    ]
    return Table(
        name=name,
        title=title,
        notes=joined(f"{conditions(rows)}.", _NOTES, _SOME_STUDENTS * of_some, unproven(body)),
        columns=["", "probed on", *headings],
        body=body,
    )


def _gaps(rows: Sequence[Row], lines: Sequence[tuple[str, str]]) -> dict[tuple[str, str], _Gap]:
    """Return the difference of each pair of labels, over the students that have both."""
    columns = sort_into(students(rows), rows, lambda row: row.student).values()
    found = {}
    for above, below in lines:
        both = [column for column in columns if column.get(above) and column.get(below)]
        if len(both) < min(2, len(columns)):
            both = []  # one student is no mean
        gaps = [less(samples_of(column[above]), samples_of(column[below])) for column in both]
        keys = [row.key for column in both for label in (above, below) for row in column[label]]
        found[above, below] = _Gap(
            mean=summarise(mean_of(gaps)), is_of_some=len(both) < len(columns), keys=keys
        )
    return found
