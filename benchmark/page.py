"""A report as one page for a browser: tables that sort, figures, and the rows behind each number.

The page holds all that it shows, asks no network for anything, and is readable without its script.
What rows and tables say is text: it is escaped wherever it stands.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from benchmark.pictures import Picture
from benchmark.report import READING, Report
from benchmark.rows import Row
from benchmark.tables._table import Cell, Table

_FIGURE_SPACE = "\u2007"  # as wide as a digit
_WIDE = 800  # pixels of a PNG file that spans the page
_MEANINGS = {"best": "best in its column", "noise": "inside the noise"}  # for those who listen


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a table on the page.

    Attributes:
        text: its number, or words; `rest` is what follows the number, as wide as in its column.
        value: what it sorts by.
        mark: see `Cell`.
        rows: positions of the rows that it summarises.
    """

    text: str
    rest: str
    value: int | float | None
    mark: str
    rows: Sequence[int]


def page(report: Report) -> str:
    """Return a report as one HTML document."""
    position = {row.key: place for place, row in enumerate(report.rows)}
    results, others = (
        [_table(table, position) for table in report.tables if table.headline is headline]
        for headline in (True, False)
    )
    pictures = [_picture(picture) for picture in report.pictures]
    parts = {
        "Result": results[:1],
        "Figures": pictures,
        "Tables": results[1:],
        "Other probes": others,
    }
    template = _environment().get_template("page.html")
    return template.render(
        report=report,
        reading=READING,
        meanings=_MEANINGS,
        parts=parts,
        rows=Markup(_in_script(_interned(report.rows))),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("benchmark", "assets/page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    return environment


def _inline(text: str) -> Markup:
    """Return text as HTML, with `code` in backticks."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _table(table: Table, position: Mapping[str, int]) -> dict[str, Any]:
    columns = zip(*table.body, strict=True) if table.body else [()] * len(table.columns)
    fields = [_fields(cells, position) for cells in columns]
    return {
        "id": f"table-{table.name}",
        "title": table.title,
        "notes": table.notes,
        "columns": [
            {
                "name": name or "method",
                "is_number": any(field.value is not None for field in column),
                "has_marks": any(field.mark for field in column),
            }
            for name, column in zip(table.columns, fields, strict=True)
        ],
        "body": list(zip(*fields, strict=True)),
    }


def _fields(cells: Iterable[Cell], position: Mapping[str, int]) -> list[Field]:
    """Return the fields of a column; what follows the numbers is equally wide in all of them."""
    parts = [(cell, *_split(cell.text)) for cell in cells]
    width = max((len(rest) for _, _, rest in parts), default=0)
    return [
        Field(
            text=text,
            rest=f"± {rest.rjust(width, _FIGURE_SPACE)}" if rest else "",
            value=cell.value,
            mark=cell.mark,
            rows=[position[key] for key in dict.fromkeys(cell.keys) if key in position],
        )
        for cell, text, rest in parts
    ]


def _split(text: str) -> tuple[str, str]:
    """Return a number and what follows its ±, or the whole text and nothing."""
    found = re.fullmatch(r"([-+]?[\d.,]+) ± (.*)", text)
    return (found[1], found[2]) if found else (text, "")


def _picture(picture: Picture) -> dict[str, Any]:
    figure = picture.figure
    return {
        "id": f"figure-{figure.name}",
        "title": figure.title,
        "notes": figure.notes,
        "alt": figure.alt,
        "svg": Markup(picture.svg) if picture.svg else None,
        "data": "" if picture.svg else _data(picture.file),
        "is_wide": picture.width > _WIDE,
    }


def _data(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _interned(rows: Sequence[Row]) -> dict[str, Any]:
    """Return rows as lists of values, settings and the like, which many share, only once."""
    if not rows:
        return {"fields": [], "nested": [], "shared": [], "rows": []}
    content = [asdict(row) for row in rows]
    nested = [name for name, value in content[0].items() if isinstance(value, dict)]
    shared: dict[str, int] = {}

    def kept(name: str, value: Any) -> Any:
        return shared.setdefault(json.dumps(value), len(shared)) if name in nested else value

    lines = [[kept(name, value) for name, value in row.items()] for row in content]
    return {
        "fields": list(content[0]),
        "nested": nested,
        "shared": [json.loads(text) for text in shared],
        "rows": lines,
    }


def _in_script(content: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
