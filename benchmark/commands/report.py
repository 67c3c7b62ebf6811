"""Build a report from rows, without running anything."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import plugins, report, rows
from benchmark.plan import Suite
from benchmark.spec import UsageError


def main(arguments: argparse.Namespace) -> int:
    """Merge the files of rows, where later ones count, and write their report."""
    if bool(arguments.rows) != bool(arguments.output):
        raise UsageError("--rows FILE ... and --output DIR: expected both or neither")
    folder: Path = arguments.output or arguments.reports / (arguments.suite or "quick")
    found: list[rows.Row] = []
    for file in arguments.rows or [folder / "rows.jsonl"]:
        if not file.exists():
            raise UsageError(f"{file}: no such file; `run` makes it, or name others with --rows")
        found = rows.merge(found, rows.read(file))
    suite = _suite(arguments.suite, found)
    if arguments.rows:
        rows.write(folder / "rows.jsonl", found)
    write_report(folder, found, suite)
    return 0


def write_report(folder: Path, found: Sequence[rows.Row], suite: Suite | None) -> None:
    """Write the report of rows, and print its first table."""
    title, notes = (suite.title, suite.notes) if suite else (found[-1].suite, "")
    file = folder / "report.md"
    report.write(file, found, title=title, notes=notes)
    sys.stdout.write(f"{report.headline(found)}\n\n{file}\n")


def _suite(name: str | None, found: Sequence[rows.Row]) -> Suite | None:
    """Return the suite that was named, else that of the last row, if it is known here."""
    if name is None and found:
        name = found[-1].suite
        if name not in plugins.names("suites"):
            return None
    suite: Suite = plugins.load("suites", name or "quick")
    return suite
