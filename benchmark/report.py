"""A report: tables and what their reader must know, from rows alone."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmark import plugins
from benchmark.files import atomic
from benchmark.rows import Row
from benchmark.tables._table import Table

_ORDER = ("cross-architecture", "downstream", "budgets", "ablation", "losses", "cost")


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return every table that the rows can fill; tables of other packages come last."""
    known = plugins.names("tables")
    ordered = [name for name in _ORDER if name in known]
    ordered += [name for name in known if name not in _ORDER]
    return [table for name in ordered for table in plugins.load("tables", name)(rows)]


def current(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split rows into those that belong together and those that later ones have replaced.

    One report is about one context (data, teacher, recipe): that of the last row. In it, a label
    stands for one setting of its method, and so do students and probes: that of their last row. A
    seed counts once.
    """
    context = rows[-1].context if rows else ""
    here = [row for row in rows if row.context == context]
    methods = {row.label: row.settings for row in here}
    students = {row.student: row.student_settings for row in here}
    probes = {row.probe: row.probe_settings for row in here}
    fitting = [
        row
        for row in here
        if row.settings == methods[row.label]
        and row.student_settings == students[row.student]
        and row.probe_settings == probes[row.probe]
    ]
    last = {_place(row): row for row in fitting}
    kept = [row for row in fitting if last[_place(row)] is row]
    chosen = set(map(id, kept))
    return kept, [row for row in rows if id(row) not in chosen]


def _place(row: Row) -> tuple[object, ...]:
    """Return what no two numbers of a table have in common."""
    protocol = row.probe, row.labels_per_class
    return row.label, row.N, row.student, row.seed, row.downstream, *protocol


def write(file: Path, rows: Sequence[Row], *, title: str, notes: str) -> None:
    """Write the Markdown report of `rows`, whole or not at all."""
    kept, left_out = current(rows)
    parts = [f"# {title}", notes, _conditions(kept)]
    if left_out:
        parts.append(
            f"Rows that are in the file but not in these tables: {len(left_out)}. Later ones are "
            "of another teacher, recipe or setting, or of the same seed."
        )
    parts += [table.markdown() for table in tables(kept)]
    with atomic(file) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def headline(rows: Sequence[Row]) -> str:
    """Return the first table as Markdown, for the terminal."""
    found = tables(current(rows)[0])
    return found[0].markdown() if found else "no rows"


def _conditions(rows: Sequence[Row]) -> str:
    """Say what all numbers have in common, and where they depart from what was published."""
    if not rows:
        return "No rows."
    versions = [
        f"{name} {_every(row.provenance[name] for row in rows)}" for name in ("torch", "timm")
    ]
    return "\n".join(
        [
            "Top-1 accuracy in per cent, mean ± 95 % interval (Student's t) over "
            f"seeds {_every(row.seed for row in rows)}; published numbers in brackets, where "
            "everything is as published.",
            "",
            f"- source: {_every(row.source for row in rows)}",
            f"- teacher: {_every(row.teacher for row in rows)}",
            f"- recipe: {_every(row.recipe for row in rows)}",
            f"- device: {_every(row.device for row in rows)}; precision "
            f"{_every(row.precision for row in rows)}",
            f"- commit: {_every(str(row.provenance['commit'])[:12] for row in rows)}; "
            + "; ".join(versions),
            *_changes(rows),
        ]
    )


def _every(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _changes(rows: Sequence[Row]) -> list[str]:
    """List by owner all settings that are not the published defaults."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for owner, fields in row.changes.items():
            name = row.label if owner == row.method else owner
            values = (f"{field} = {json.dumps(value)}" for field, value in fields.items())
            found.setdefault(name, {}).update(dict.fromkeys(values))
    if not found:
        return ["- settings: the published defaults"]
    lines = [f"  - {name}: {', '.join(found[name])}" for name in sorted(found)]
    return ["- settings that are not the published defaults:", *lines]
