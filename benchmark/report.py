"""A report: tables and what their reader must know, from rows alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark import plugins
from benchmark.files import atomic
from benchmark.rows import Row
from benchmark.tables._table import Table

_ORDER = ("cross-architecture", "downstream", "budgets", "ablation", "cost")


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return every table that the rows can fill; tables of other packages come last."""
    known = plugins.names("tables")
    ordered = [name for name in _ORDER if name in known]
    ordered += [name for name in known if name not in _ORDER]
    return [table for name in ordered for table in plugins.load("tables", name)(rows)]


def current(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Split rows into those that belong together and those that newer settings have replaced.

    One report is about one context (data, teacher, recipe): that of the newest row. In it, a label
    stands for one setting of its method, and so do students and probes: that of their newest row.
    """
    ordered = sorted(rows, key=lambda row: str(row.provenance["finished_at"]))
    context = ordered[-1].context if ordered else ""
    methods = {row.label: row.settings for row in ordered if row.context == context}
    students = {row.student: row.student_settings for row in ordered if row.context == context}
    probes = {row.probe: row.probe_settings for row in ordered if row.context == context}
    kept: list[Row] = []
    left_out: list[Row] = []
    for row in ordered:
        fits = (
            row.context == context
            and row.settings == methods[row.label]
            and row.student_settings == students[row.student]
            and row.probe_settings == probes[row.probe]
        )
        (kept if fits else left_out).append(row)
    return kept, left_out


def write(file: Path, rows: Sequence[Row], *, title: str, notes: str) -> None:
    """Write the Markdown report of `rows`, whole or not at all."""
    kept, left_out = current(rows)
    parts = [f"# {title}", notes, _conditions(kept)]
    if left_out:
        parts.append(
            f"{len(left_out)} rows of other settings (an older teacher, other students, or other "
            "fields of a method) are in the file but not in these tables."
        )
    parts += [table.markdown() for table in tables(kept)]
    with atomic(file) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def headline(rows: Sequence[Row]) -> str:
    """Return the first table as Markdown, for the terminal."""
    found = tables(current(rows)[0])
    return found[0].markdown() if found else "no rows"


def _conditions(rows: Sequence[Row]) -> str:
    """Say what all numbers have in common."""

    def every(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    if not rows:
        return "No rows."
    commits = every(str(row.provenance["commit"])[:12] for row in rows)
    return "\n".join(
        [
            "Top-1 accuracy in per cent, mean ± 95 % interval (Student's t) over "
            f"seeds {every(row.seed for row in rows)}; published numbers in brackets.",
            "",
            f"- source: {every(row.source for row in rows)}",
            f"- teacher: {every(row.teacher for row in rows)}",
            f"- recipe: {every(row.recipe for row in rows)}",
            f"- device: {every(row.device for row in rows)}; precision "
            f"{every(row.precision for row in rows)}",
            f"- commit: {commits}; torch {every(row.provenance['torch'] for row in rows)}; timm "
            f"{every(row.provenance['timm'] for row in rows)}",
        ]
    )
