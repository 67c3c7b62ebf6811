"""A report: tables and the notes that go with them, from rows alone."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from benchmark import plugins
from benchmark.grid import CELL_FLAGS, FLAGS
from benchmark.provenance import short_commit
from benchmark.reporting import pictures
from benchmark.reporting.order import rank
from benchmark.reporting.pictures import Picture
from benchmark.reporting.selection import current, once, reasons
from benchmark.reporting.stored_sets import StoredSets
from benchmark.reporting.table import Table
from benchmark.rows import Row

_ORDER = (
    *("cross-architecture", "downstream", "budgets", "ablation", "ladder", "paired"),
    *("accuracy-per-byte", "probe-sensitivity", "storage", "cost", "losses", "provenance"),
)

READING = """
Top-1 accuracy in per cent: mean ± 95 % confidence interval over seeds and, where a probe sees few
labels, over label subsets (with only two subsets, coverage may fall to 90 %). In parentheses: the
published number and our difference from it, shown only where every setting, precision aside, is the
published one. All seeds share one teacher, and those of `datm` one set of experts: no interval or
test covers the variation between these, nor that between test sets. Tests are paired by seed and
subset, at the 5 % level, with at least three seeds; with three seeds and several subsets, p-values
below 0.006 occur up to 2.5 times too often. Bold: significantly better than every other row of the
column that has a budget. ≈: not significantly different from `random` (from `random-labels` if that
was run instead; in the ablation, from `krr-st`), with Holm's correction over the rows of a column.
There is no correction across columns: where there are no differences, up to one column in twenty
still shows one. In CSV files, p is the corrected p-value, half-width is half the width of the
interval, and n is the number of seeds; text that a spreadsheet would take for a formula begins with
an apostrophe.
""".strip().replace("\n", " ")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows, in any format.

    Attributes:
        title: one line.
        notes: of the suite.
        facts: what all numbers have in common, by name.
        commands: that made them.
        changes: by owner, the settings that are not the published defaults.
        rows: that the tables are made from, each number once.
        tables: those of the headline probe, then those of the others.
        left_out: how many other rows, with their cost, are not in the report, and why, in one line.
        pictures: figures that were drawn, or kept from the run itself.
        missing: why a figure is not among them, by title.
    """

    title: str
    notes: str
    facts: Mapping[str, str]
    commands: Sequence[str]
    changes: Mapping[str, str]
    rows: Sequence[Row]
    tables: Sequence[Table]
    left_out: str = ""
    pictures: Sequence[Picture] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def build(rows: Sequence[Row], *, title: str, notes: str) -> Report:
    """Return the report of those `rows` that belong together."""
    kept = current(rows)
    if any(_changes_the_suite(row) for row in kept):
        title = f"{rows[-1].suite}, changed by flags: {title}"
        notes = "The suite's own description may not apply: see the flags below."
    if len(suites := sorted({row.suite for row in kept})) > 1:
        title = f"Rows of several suites: {', '.join(suites)}"
        notes = "The description of each suite may not apply to all rows."
    return Report(
        title=title,
        notes=notes,
        facts=facts(kept),
        commands=commands(kept),
        changes=_changes(kept),
        rows=once(kept),
        left_out=reasons(rows, kept),
        tables=sorted(tables(kept), key=lambda table: not table.headline),
    )


def illustrated(
    report: Report, folder: Path, sets: StoredSets, *, beside: Iterable[Path] = ()
) -> Report:
    """Return a report with every figure that can be drawn, as files below `folder`.

    Where no store has a figure's sets, it is taken from a report in the folders `beside`.
    """
    drawn, missing = pictures.write(folder, pictures.figures(report.rows, sets), beside=beside)
    return replace(report, pictures=drawn, missing=missing)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return every table that the rows can fill; tables of other packages come last.

    A number computed on several devices has a row for each; accuracies use the last one.
    """
    ordered = sorted(plugins.names("tables"), key=lambda name: rank(name, _ORDER))
    found = [table for name in ordered for table in plugins.load("tables", name)(rows)]
    return _apart(found)


def _apart(found: Iterable[Table]) -> list[Table]:
    """Return tables with a number appended to repeated names, as each table has its own files."""
    apart: dict[str, Table] = {}
    for table in found:
        names = chain([table.name], (f"{table.name}-{n}" for n in count(2)))
        name = next(name for name in names if name not in apart)
        apart[name] = replace(table, name=name)
    return list(apart.values())


_CHANGES = {f"--{name.replace('_', '-')}" for name in FLAGS if name not in CELL_FLAGS}


def facts(rows: Sequence[Row]) -> dict[str, str]:
    """Return, by name, the conditions under which rows were made; empty without rows."""
    if not rows:
        return {}
    return {
        "source": _every(f"{row.source}, {row.size}x{row.size}" for row in rows),
        "teacher": _every(map(_teacher, rows)),
        "recipe": _every(row.recipe for row in rows),
        "seeds": _every(row.seed for row in rows),
        "device": _every(row.device for row in rows),
        "precision": _every(row.precision for row in rows),
        **_layout(rows),
        **_probing(rows),
        "protocol": _every(row.protocol for row in rows),
        "commit": _every(short_commit(row.provenance["commit"]) for row in rows),
        **_versions(rows),
        **{name: _every(row.provenance[name] for row in rows) for name in ("torch", "timm")},
    }


def commands(rows: Iterable[Row]) -> list[str]:
    """Return the commands that made rows."""
    return sorted(set(map(_command, rows)))


def _versions(rows: Sequence[Row]) -> dict[str, str]:
    """Return how many rows each version of some code made, where there are several."""
    made: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:  # older ones do not tell
        told, commit = row.provenance.get, short_commit(row.provenance["commit"])
        made["pretraining and probes"][told("code", "")].append(commit)
        made[f"the method {row.label}"][told("method_code", "")].append(commit)
        made[f"the student {row.student}"][told("student_code", "")].append(commit)
    changes = [
        f"the code of {what} changed: "
        + "; ".join(sorted(f"{len(commits)} of {_every(commits)}" for commits in found.values()))
        for what, found in made.items()
        if len(found) > 1
    ]
    return {"versions": ", and ".join(changes)} if changes else {}


def _layout(rows: Sequence[Row]) -> dict[str, str]:
    """Return the memory layouts, unless all rows are older than this record."""
    found = [row.provenance.get("layout", "not recorded") for row in rows]
    return {} if set(found) == {"not recorded"} else {"layout": _every(found)}


def _probing(rows: Sequence[Row]) -> dict[str, str]:
    """Return caveats about the probes of some numbers."""
    found = {}
    if count := sum(not row.converged for row in rows):
        found["not converged"] = f"the probe of {count} of {len(rows)} numbers"
    chosen = [row for row in rows if row.strength is not None]
    if count := sum(row.strength == _weakest(row) for row in chosen):
        found["penalty"] = (
            f"the weakest one tried, for {count} of the {len(chosen)} numbers whose probe tunes it"
        )
    return found


def _weakest(row: Row) -> float | None:
    """Return the weakest penalty that a row's probe could choose; None without a choice."""
    strengths = row.probe_settings.get("strengths")
    if not isinstance(strengths, list) or len(strengths) < 2:
        return None
    return min((x for x in strengths if isinstance(x, int | float)), default=None)


def _command(row: Row) -> str:
    words = ("python -m benchmark run --suite", row.suite, row.provenance.get("flags", ""))
    return " ".join(filter(None, words))


def _changes_the_suite(row: Row) -> bool:
    """Say whether flags changed more than the selection of the suite's cells."""
    return not _CHANGES.isdisjoint(row.provenance.get("flags", "").split())


def _teacher(row: Row) -> str:
    read = (f"{accuracy:.1f} % ({how})" for how, accuracy in sorted(row.teacher_held_out.items()))
    return f"{row.teacher}, held out: {', '.join(read)}".replace("_", " ")


def _every(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _changes(rows: Sequence[Row]) -> dict[str, str]:
    """Return all settings that are not the published defaults, by owner."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for owner, fields in row.changes.items():
            name = row.label if owner == row.method else owner
            values = (f"{field} = {json.dumps(value)}" for field, value in fields.items())
            found.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}
