"""One step at a time: from untrained students to `ours`, and from its storage to all of it."""

from collections.abc import Sequence
from dataclasses import replace

from benchmark.reporting.marks import tested, unproven
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
    protocol_of,
    protocols,
    students,
)
from benchmark.reporting.statistics import less, mean_of, samples_of, summarise
from benchmark.reporting.table import NOISE, Cell, Table
from benchmark.rows import Row

from ._accuracy import sort_into

__all__ = ["ladder"]

_NONE, _BASES = "ours: none of the three", "ours: bases only"

# What is asked of each: whether the first is above the second.
_STEPS = (
    ("random", "untrained"),  # pretraining on anything
    ("krr-st", "random"),  # outer steps on plain pairs
    ("ours", "krr-st"),  # all that is new
    (_BASES, _NONE),  # bases
    ("ours", _BASES),  # views and their networks
    ("pca", "random-bytes"),  # bases against as many bytes of real images
    ("ours", "random-bytes"),
    ("ours", "pca"),  # outer steps on bases: the same storage
)

_NOTES = (
    "Mean difference in points and its 95 % interval over equal seeds (and subsets of labels); p "
    "is the probability of such a difference if there is none, after Holm's correction for the "
    f"lines of a column on one dataset. {NOISE}: inside the noise. `pca` is the storage of `ours` "
    "without a single outer step."
)


def ladder(rows: Sequence[Row]) -> list[Table]:
    """Return a table of differences for each budget, the main one first.

    It has a column per probe for the first student, and for the mean of all students with both
    methods' numbers, if these are several.
    """
    rows = [row for row in in_order(rows) if row.student != "teacher"]
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
    """Return the steps that `rows`, of one budget, can answer."""
    found = set(labels(rows))
    lines = [pair for pair in _STEPS if found.issuperset(pair)]
    compared = students([row for row in rows if row.N is not None])
    columns = [
        (protocol, who)
        for protocol in protocols(rows)
        for who in ([student], compared)[: min(2, len(compared))]
    ]
    body = []
    for dataset in datasets(rows):
        mine = [row for row in rows if row.downstream == dataset]
        cells = [
            _differences(
                [row for row in mine if protocol_of(row) == protocol and row.student in who], lines
            )
            for protocol, who in columns
        ]
        for above, below in lines:
            gaps = [column[above, below] for column in cells]
            if any(gap.value is not None for gap in gaps):
                body.append([Cell(f"{above} - {below}"), Cell(dataset), *gaps])
    headings = [
        f"{describe(*protocol)}: {student if len(who) == 1 else 'mean of students'}"
        for protocol, who in columns
    ]
    return Table(
        name=name,
        title=title,
        notes=joined(f"{conditions(rows)}.", _NOTES, unproven(body)),
        columns=["", "probed on", *headings],
        body=body,
    )


def _differences(
    rows: Sequence[Row], lines: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Cell]:
    """Return the tested difference of each pair of labels, over the students that have both."""
    columns = sort_into(students(rows), rows, lambda row: row.student).values()
    differences, keys = {}, {}
    for above, below in lines:
        both = [column for column in columns if column.get(above) and column.get(below)]
        if len(both) < min(2, len(columns)):
            both = []  # one student is no mean
        gaps = [less(samples_of(column[above]), samples_of(column[below])) for column in both]
        differences[above, below] = summarise(mean_of(gaps))
        keys[above, below] = [
            row.key for column in both for label in (above, below) for row in column[label]
        ]
    return tested(differences, keys)
