"""Two runs side by side: what changed in settings and in numbers, and what is significant."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmark.grid import Protocol
from benchmark.reporting.marks import tested, unproven
from benchmark.reporting.order import (
    describe,
    grouped,
    in_order,
    joined,
    labels,
    protocol_of,
    protocols,
    slug,
)
from benchmark.reporting.published import Place, place_of
from benchmark.reporting.report import commands, facts
from benchmark.reporting.seeds import seeds_of
from benchmark.reporting.selection import current, reasons
from benchmark.reporting.statistics import (
    Estimate,
    Samples,
    less,
    mean_of,
    samples_of,
    summarise,
)
from benchmark.reporting.table import MISSING, NOISE, Cell, Table, estimated, number
from benchmark.rows import Row

_Pairs = Mapping[Place, tuple[list[Row], list[Row]]]

_NOTES = (
    "B minus A in points, with its 95 % interval over the n seeds (and label subsets) that both "
    "have. p: p-value of the difference, with Holm's correction over the rows of a column, "
    f"including those with equal numbers, which are not shown. {NOISE}: not significant."
)


def compare(before: Sequence[Row], after: Sequence[Row]) -> list[Table]:
    """Return what changed: settings, then numbers by method, then every number, probe by probe.

    Numbers that are equal in both runs are counted and left out. As in reports, rows that were
    replaced by later ones do not count.
    """
    given, kept = (before, after), [current(rows) for rows in (before, after)]
    whys = map(reasons, given, kept)
    left_out = joined(*(f"{name}: {why}." for name, why in zip("AB", whys, strict=True) if why))
    before, after = map(in_order, kept)
    pairs = {protocol: _pairs(before, after, protocol) for protocol in protocols([*before, *after])}
    columns = {describe(protocol): found for protocol, found in pairs.items() if _differing(found)}
    return [
        _settings(before, after, joined(_in_common(before, after, pairs), left_out)),
        *([_by_method(columns)] if columns else []),
        *(_numbers(protocol, found) for protocol, found in pairs.items() if _differing(found)),
    ]


def _in_common(
    before: Sequence[Row], after: Sequence[Row], pairs: Mapping[Protocol, _Pairs]
) -> str:
    """Return a sentence on how many numbers both runs have, and how many tables leave out."""
    if lacking := [name for name, rows in (("A", before), ("B", after)) if not rows]:
        return f"No rows in {' and '.join(lacking)}."
    total = sum(map(len, pairs.values()))
    equal = total - sum(len(_differing(found)) for found in pairs.values())
    if not total:
        return f"In common: nothing; {_apart(before, after)}."
    if equal == total:
        return f"No number differs: all {total:,} that both have are equal."
    return f"Equal in both, and not shown: {equal:,} of {total:,} numbers." if equal else ""


def _apart(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Return what only one run has: the names of everything that a number depends on."""
    a, b = _grid(before), _grid(after)
    only = {
        name: "; ".join(
            f"{what} {', '.join(lacking)}"
            for what, mine in run.items()
            if (lacking := [each for each in mine if each not in other[what]])
        )
        for name, run, other in (("A", a, b), ("B", b, a))
    }
    if not any(only.values()):
        return "both have the same names, in different combinations"
    return ", ".join(f"only in {name}: {names}" for name, names in only.items() if names)


def _grid(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the names that span the grid of a run."""
    return {
        "methods": labels(rows),
        "budgets": [str(N) for N in sorted({row.N for row in rows if row.N is not None})],
        "students": sorted({row.student for row in rows}),
        "downstream": sorted({row.downstream for row in rows}),
        "probes": [slug(protocol) for protocol in protocols(rows)],
    }


def _differing(pairs: _Pairs) -> _Pairs:
    """Return the pairs that differ in their seeds or values."""
    return {place: pair for place, pair in pairs.items() if not _is_equal(*map(samples_of, pair))}


def _is_equal(a: Samples, b: Samples) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[seed], b[seed]) for seed in a)


def _settings(before: Sequence[Row], after: Sequence[Row], remarks: str) -> Table:
    """Return every fact that differs, and every setting that differs of what both runs have."""
    shared = _owners(before) & _owners(after)
    a, b = _facts(before, shared), _facts(after, shared)
    changed = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return Table(
        name="settings",
        title="What changed",
        notes=joined("" if changed else "No setting differs.", remarks),
        columns=["", "A", "B"],
        body=[
            [Cell(name), *(Cell(run.get(name, MISSING.text)) for run in (a, b))] for name in changed
        ],
    )


def _owners(rows: Iterable[Row]) -> set[str]:
    return {owner for row in rows for owner in (row.label, row.student, row.probe)}


def _facts(rows: Sequence[Row], shared: set[str]) -> dict[str, str]:
    """Return facts, the grid, and the settings of `shared` owners and of those without rows."""
    grid = {
        **_grid(rows),
        "hash of data, teacher and recipe": sorted({row.context for row in rows}),
    }
    found = {
        **facts(rows),
        "made by": ", ".join(commands(rows)),
        **{name: ", ".join(values) for name, values in grid.items()},
    }
    for row in rows:
        parts = {
            row.label: {**row.settings, f"student steps at N = {row.N}": row.student_steps},
            row.student: row.student_settings,
            row.probe: row.probe_settings,
        }
        others = {owner: fields for owner, fields in row.changes.items() if owner != row.method}
        for owner, fields in {**others, **parts}.items():
            if owner in shared or owner not in parts:
                found |= {f"{owner}.{name}": json.dumps(x) for name, x in fields.items()}
    return found


def _pairs(before: Sequence[Row], after: Sequence[Row], protocol: Protocol) -> _Pairs:
    """Return the rows of both runs at each place that both have, methods in their order."""
    a, b = (
        grouped([row for row in rows if protocol_of(row) == protocol], place_of)
        for rows in (before, after)
    )
    rank = {label: position for position, label in enumerate(labels([*before, *after]))}
    places = sorted(a.keys() & b.keys(), key=lambda place: (rank[place[0]], place[1] or 0, place))
    return {place: (a[place], b[place]) for place in places}


def _difference(pair: tuple[Sequence[Row], Sequence[Row]]) -> Samples:
    a, b = pair
    return less(samples_of(b), samples_of(a))


def _by_method(columns: Mapping[str, _Pairs]) -> Table:
    """Return the mean change of every method over all its numbers that both runs have."""
    names = dict.fromkeys(label for pairs in columns.values() for label, *_ in _differing(pairs))
    cells = [tested(_mean_changes(pairs), counted=True) for pairs in columns.values()]
    body = [
        [
            Cell(name),
            *(_or_why(column[name]) if name in column else MISSING for column in cells),
        ]
        for name in names
    ]
    return Table(
        name="methods",
        title="Mean change by method",
        notes=joined(
            _NOTES,
            unproven(body),
            "Means over all students, budgets and datasets that both runs have.",
        ),
        columns=["", *columns],
        body=body,
    )


def _mean_changes(pairs: _Pairs) -> dict[str, Estimate | None]:
    """Return the mean change of every method, also of those whose numbers are equal."""
    names = dict.fromkeys(label for label, *_ in pairs)
    return {
        name: summarise(
            mean_of([_difference(pair) for (label, *_), pair in pairs.items() if label == name])
        )
        for name in names
    }


def _or_why(difference: Cell) -> Cell:
    """Return a difference, or that there is none because no seed is shared."""
    return Cell("no seed in common") if difference == MISSING else difference


def _numbers(protocol: Protocol, pairs: _Pairs) -> Table:
    changes = tested(
        {place: summarise(_difference(pair)) for place, pair in pairs.items()}, counted=True
    )
    body = [
        [
            Cell(label),
            number(N, "{}"),
            Cell(student),
            Cell(dataset),
            _mean(a, counted=seeds_of(a) != seeds_of(b)),
            _mean(b, counted=seeds_of(a) != seeds_of(b)),
            _or_why(changes[label, N, student, dataset]),
        ]
        for (label, N, student, dataset), (a, b) in _differing(pairs).items()
    ]
    return Table(
        name=f"numbers-{slug(protocol)}",
        title=f"Numbers: {describe(protocol)}",
        notes=joined(_NOTES, unproven([line[-1:] for line in body])),
        columns=["", "N", "student", "probed on", "A", "B", "B - A"],
        body=body,
    )


def _mean(rows: Sequence[Row], *, counted: bool) -> Cell:
    count = f", n = {len(seeds_of(rows))}" if counted else ""
    return estimated(summarise(samples_of(rows)), [row.key for row in rows], note=count)
