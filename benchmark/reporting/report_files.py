"""A report as files: Markdown, one page for a browser, and tables for spreadsheets and print."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmark.files import write_text
from benchmark.reporting.markdown import escape
from benchmark.reporting.page import page
from benchmark.reporting.report import READING, Report


def write(folder: Path, report: Report, formats: Iterable[str]) -> list[Path]:
    """Write a report in some of `FORMATS`, every file atomically; return the files."""
    texts = {
        folder / name: text for form in formats for name, text in FORMATS[form](report).items()
    }
    for file, text in texts.items():
        write_text(file, text)
    return list(texts)


def markdown(report: Report) -> str:
    """Return a report as one Markdown document."""
    parts = [f"# {escape(report.title)}", report.notes]
    parts += [READING, _listed(report)] if report.rows else ["No rows."]
    parts.append(f"{report.left_out}." if report.left_out else "")
    main = [table.markdown() for table in report.tables if table.headline]
    others = [table.markdown() for table in report.tables if not table.headline]
    parts += [
        *(["## Results", *main] if main else []),
        *_figures(report),
        *(["## Other probes", *others] if others else []),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _figures(report: Report) -> list[str]:
    if not (report.pictures or report.missing):
        return []
    left_out = "\n".join(
        f"- {escape(title)}: {escape(reason)}" for title, reason in report.missing.items()
    )
    return [
        "## Figures",
        *(picture.markdown() for picture in report.pictures),
        *([f"Figures that could not be drawn here:\n\n{left_out}"] if left_out else []),
    ]


def _listed(report: Report) -> str:
    """Return facts, commands and changed settings as a list."""
    lines = [f"- {name}: {escape(value)}" for name, value in report.facts.items()]
    if report.commands:
        lines += ["- made by:", *(f"  - {escape(command)}" for command in report.commands)]
    if not report.changes:
        return "\n".join([*lines, "- settings: the published defaults"])
    changes = [f"  - {escape(owner)}: {escape(fields)}" for owner, fields in report.changes.items()]
    return "\n".join([*lines, "- settings that are not the published defaults:", *changes])


FORMATS: Mapping[str, Callable[[Report], Mapping[str, str]]] = {
    "markdown": lambda report: {"report.md": markdown(report)},
    "html": lambda report: {"report.html": page(report)},
    "csv": lambda report: {f"tables/{table.name}.csv": table.csv() for table in report.tables},
    "latex": lambda report: {f"tables/{table.name}.tex": table.latex() for table in report.tables},
}

ILLUSTRATED = {"markdown", "html"}  # formats with figures
