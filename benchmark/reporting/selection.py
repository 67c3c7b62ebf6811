"""Which rows belong to one report, and why the others do not."""

from collections import Counter
from collections.abc import Sequence

from benchmark.reporting.order import identity
from benchmark.rows import Row

_CONTEXT = {  # fields of a row by topic
    "data": ("source", "size"),
    "teacher": ("teacher", "teacher_held_out"),
    "recipe": ("recipe",),
}


def current(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that belong together.

    A report covers one context (data, teacher, recipe): that of the last row. Within it, each
    label, student and probe stands for one set of settings: that of its last row (settings added
    later count as defaults in older rows). A seed counts once per device: accuracy tables use the
    last row, cost tables all of them.
    """
    context = rows[-1].context if rows else ""
    here = [row for row in rows if row.context == context]
    methods = {row.label: row for row in here}
    students = {row.student: row for row in here}
    probes = {row.probe: row for row in here}
    fitting = [
        row
        for row in here
        if _agree(row, methods[row.label], "method", "settings")
        and _agree(row, students[row.student], "student", "student_settings")
        and _agree(row, probes[row.probe], "probe", "probe_settings")
    ]
    last = {(*identity(row), row.device): row for row in fitting}
    return [row for row in fitting if last[*identity(row), row.device] is row]


def _agree(row: Row, other: Row, owner: str, settings: str) -> bool:
    """Say whether two rows agree in an owner and its settings, both given as names of fields.

    A setting that only one of them has was added later: in the other it is at its default.
    """
    mine, others = getattr(row, settings), getattr(other, settings)
    changed = {name for r in (row, other) for name in r.changes.get(getattr(r, owner), ())}
    return (
        getattr(row, owner) == getattr(other, owner)
        and all(mine[name] == others[name] for name in mine.keys() & others.keys())
        and not (mine.keys() ^ others.keys()) & changed
    )


def once(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that accuracy tables use: the last one of each number."""
    last = {identity(row): row for row in rows}
    return [row for row in rows if last[identity(row)] is row]


def reasons(rows: Sequence[Row], kept: Sequence[Row]) -> str:
    """Return in one line how many rows are not `kept` in a report, and why; empty if all are."""
    chosen = set(map(id, kept))
    left_out = [row for row in rows if id(row) not in chosen]
    if not left_out:
        return ""
    identities = set(map(identity, kept))
    counts = Counter(_reason(row, rows[-1], identities) for row in left_out)
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f"{len(left_out)} of {len(rows)} rows are not in the report: {words}"


def _reason(row: Row, last: Row, identities: set[tuple[object, ...]]) -> str:
    if row.context != last.context:
        others = [
            about
            for about, fields in _CONTEXT.items()
            if any(getattr(row, name) != getattr(last, name) for name in fields)
        ]
        return f"differing from the last row in {' and '.join(others or ['settings'])}"
    if identity(row) in identities:
        return "replaced by later rows with the same seed or other settings"
    return "with settings that later rows do not share"
