"""One step at a time: from untrained students to `ours`, and from its storage to all of it."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._accuracy import sort_into
from ._grid import (
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
from ._marks import tested, unproven
from ._statistics import less, mean_of, samples_of, summarise
from ._table import NOISE, Cell, Table

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
    """Return one table of differences: a column per probe, for the first student and for the mean.

    The mean is that of all students with both methods' numbers, if these are several.
    """
    rows = [row for row in in_order(rows) if row.student != "teacher"]
    budget, student = main_budget(rows), first_student(rows)
    chosen = [row for row in rows if row.N in (None, budget)]
    found = set(labels(chosen))
    lines = [pair for pair in _STEPS if found.issuperset(pair)]
    columns = [
        (protocol, who)
        for protocol in protocols(chosen)
        for who in ([student], students(chosen))[: min(2, len(students(chosen)))]
    ]
    body = []
    for dataset in datasets(chosen):
        mine = [row for row in chosen if row.downstream == dataset]
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
    if not body:
        return []
    headings = [
        f"{describe(*protocol)}: {student if len(who) == 1 else 'mean of students'}"
        for protocol, who in columns
    ]
    return [
        Table(
            name="ladder",
            title=f"One step at a time{at(budget)}",
            notes=joined(f"{conditions(chosen)}.", _NOTES, unproven(body)),
            columns=["", "probed on", *headings],
            body=body,
            headline=True,
        )
    ]


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
