"""Build a report from rows, without running anything."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark import plugins, rows
from benchmark.commands._rows import rows_at
from benchmark.grid import Suite
from benchmark.reporting import report, report_files
from benchmark.reporting.stored_sets import StoredSets
from benchmark.rows import Row
from benchmark.spec import UsageError


def main(arguments: argparse.Namespace) -> int:
    """Merge rows, later ones taking precedence, and write their report.

    Rows given by --rows go, with their report, to a separate folder: those of runs stay unchanged
    unless --output names them.
    """
    suite: Suite | None = arguments.suite and plugins.load("suites", arguments.suite)
    folder = arguments.reports / (arguments.suite or "quick")
    found: list[Row] = []
    named: list[Path] = arguments.rows or [folder]
    for path in named:
        found = rows.merge(found, rows_at(path, "`run` makes it; or name other files with --rows"))
    if not found:
        raise UsageError(f"{', '.join(map(str, named))}: no rows")
    if suite and found[-1].suite != suite.name:
        raise UsageError(
            f"--suite {suite.name}: the last row is of suite {found[-1].suite!r}; expected rows of "
            "that suite, or no --suite"
        )
    if suite is None and found[-1].suite in plugins.names("suites"):
        suite = plugins.load("suites", found[-1].suite)
    if arguments.rows:
        folder = arguments.output or arguments.reports / f"{_name_of(suite, found)}-merged"
        if arguments.output:
            found = rows.update(folder / "rows.jsonl", found)
        else:
            rows.write(folder / "rows.jsonl", found)
    write_report(
        arguments.output or folder,
        found,
        suite,
        formats=arguments.format,
        sets=StoredSets(*arguments.store),
        beside=[path if path.is_dir() else path.parent for path in named],
    )
    return 0


def _name_of(suite: Suite | None, found: Sequence[Row]) -> str:
    """Return the name of a known suite, which is therefore safe as the name of a folder."""
    if suite is None:
        raise UsageError(f"suite {found[-1].suite!r} is not known here: --output DIR is required")
    return suite.name


def write_report(
    folder: Path,
    found: Sequence[Row],
    suite: Suite | None,
    *,
    formats: Iterable[str],
    sets: StoredSets,
    beside: Iterable[Path] = (),
    shown: Sequence[Row] | None = None,
) -> None:
    """Write the report of rows; print a table and the paths of the report.

    Args:
        folder: of the report.
        found: its rows.
        suite: of these, if it is known here.
        formats: some of `FORMATS`.
        sets: that figures show.
        beside: folders of other reports, whose figures replace those of missing sets.
        shown: rows whose first table is printed; None means all.
    """
    title, notes = (suite.title, suite.notes) if suite else (found[-1].suite, "")
    built = report.build(found, title=title, notes=notes)
    if report_files.ILLUSTRATED & set(formats):
        built = report.illustrated(built, folder, sets, beside=beside)
    if built.left_out:
        sys.stderr.write(f"{built.left_out}\n")
    if shown is None or list(shown) == list(found):
        printed = built
    else:
        printed = report.build(shown, title=title, notes=notes)
    first = next(iter(printed.tables), None)
    files = report_files.write(folder, built, formats)
    whole = [str(file) for file in files if file.parent == folder]  # tables have their own files
    places = "\n".join(whole or [str(folder)])
    sys.stdout.write(f"{first.markdown() if first else 'no rows'}\n\n{places}\n")
