"""A report as one page for a browser: tables that sort, figures, and the rows behind each number.

The page is self-contained, needs no network, and is readable without its script. Text from rows and
tables is escaped everywhere and keeps its own reading direction.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from benchmark.reporting.pictures import Picture
from benchmark.reporting.report import READING, Report
from benchmark.reporting.table import Cell, Table
from benchmark.rows import Row

_DIGIT, _POINT = "\u2007", "\u2008"  # spaces as wide as a digit, and as a full stop
_WIDE = 800  # pixels of a PNG file that is wider than a column
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # bidirectional controls, which reorder text
_MEANINGS = {"best": "significantly best", "noise": "not significant"}  # for screen readers


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a table on the page.

    Attributes:
        text: its number, or words; `pad` are spaces that align the decimal points of a column.
        rest: half-width of its interval, padded to its column's width.
        note: what follows, on its own line.
        value: what it sorts by.
        mark: see `Cell`.
        rows: positions of the rows that it summarises.
    """

    text: str
    pad: str
    rest: str
    note: str
    value: int | float | None
    mark: str
    rows: Sequence[int]


Places = Mapping[str, Mapping[str, int]]  # positions of rows by key, then by label


def page(report: Report) -> str:
    """Return a report as one HTML document."""
    places: dict[str, dict[str, int]] = {}
    for place, row in enumerate(report.rows):
        places.setdefault(row.key, {})[row.label] = place
    results, others = (
        [_table(table, places) for table in report.tables if table.headline is headline]
        for headline in (True, False)
    )
    parts = {
        "Result": results[:1],
        "Figures": [_picture(picture) for picture in report.pictures],
        "Tables": results[1:],
        "Other probes": others,
    }
    template = _environment().get_template("page.html")
    text = template.render(
        report=report,
        conditions=_conditions(report.rows),
        reading=READING,
        meanings=_MEANINGS,
        parts=parts,
        rows=Markup(_in_script(_interned(report.rows))),
    )
    return _TURNS.sub(lambda found: f"U+{ord(found[0]):04X}", text)


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Return short phrases for the conditions of all numbers."""

    def every(noun: str, values: Iterable[object]) -> str:
        found = sorted(set(map(str, values)))
        return f"{noun} {found[0]}" if len(found) == 1 else f"{len(found)} {noun}s"

    if not rows:
        return []
    return [
        every("source", (f"{row.source} {row.size}x{row.size}" for row in rows)),
        every("teacher", (row.teacher for row in rows)),
        every("recipe", (row.recipe for row in rows)),
        every("seed", (row.seed for row in rows)),
        f"{len(rows):,} numbers",
    ]


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


def _table(table: Table, places: Places) -> dict[str, Any]:
    columns = zip(*table.body, strict=True) if table.body else [()] * len(table.columns)
    lines = [line[0].text for line in table.body]
    fields = [
        _fields(
            cells,
            [_behind(cell, places, (line, name)) for cell, line in zip(cells, lines, strict=True)],
        )
        for cells, name in zip(columns, table.columns, strict=True)
    ]
    shown = list(zip(*fields, strict=True))
    last = len(shown) - table.num_summaries
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
        "body": shown[:last],
        "foot": shown[last:],
    }


def _behind(cell: Cell, places: Places, headings: Sequence[str]) -> list[int]:
    """Return the positions of the rows behind a cell.

    Two labels may stand for the same settings and so have the same keys: the rows are then those
    whose label is in the heading of the row or column, or else all of them.
    """
    named = {part for heading in headings for part in (heading, *heading.split(" - "))}
    found: list[int] = []
    for key in dict.fromkeys(cell.keys):
        of_label = places.get(key, {})
        found += [of_label[label] for label in of_label if label in named] or of_label.values()
    return found


def _fields(cells: Sequence[Cell], rows: Sequence[Sequence[int]]) -> list[Field]:
    """Return the fields of a column, aligned at their decimal points."""
    parts = [_split(cell) for cell in cells]
    width = max((len(rest) for _, rest, _ in parts), default=0)
    digits = [_decimals(text) for text, _, _ in parts]
    most = max((number for number in digits if number is not None), default=0)
    return [
        Field(
            text=text,
            pad=_padding(number, most),
            rest=f"± {rest.rjust(width, _DIGIT)}" if rest else "",
            note=note,
            value=cell.value,
            mark=cell.mark,
            rows=behind,
        )
        for cell, behind, number, (text, rest, note) in zip(cells, rows, digits, parts, strict=True)
    ]


def _split(cell: Cell) -> tuple[str, str, str]:
    """Return a number, what follows its ±, and the rest; or the whole text."""
    text = cell.text
    if cell.value is None:
        return text, "", ""
    if found := re.fullmatch(r"([-+]?[\d.,]*\d) ± ([\d.,]*\d)(?:,? (.*))?", text):
        return found[1], found[2], found[3] or ""
    if found := re.fullmatch(r"([^(]*[^( ]) (\(.*\))", text):
        return found[1], "", found[2]
    return text, "", ""


def _decimals(text: str) -> int | None:
    """Return the digits after the point of a number; None for words."""
    found = re.fullmatch(r"[-+]?[\d,]+(?:\.(\d+))?", text)
    return len(found[1] or "") if found else None


def _padding(number: int | None, most: int) -> str:
    """Return spaces as wide as the decimals that a number lacks, compared with the longest one."""
    if number is None:
        return ""
    return (_POINT if number == 0 < most else "") + _DIGIT * (most - number)


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
    """Return rows as lists of values; nested ones (settings and the like) are stored only once."""
    if not rows:
        return {"fields": [], "nested": [], "shared": [], "rows": []}
    nested = [name for name, value in vars(rows[0]).items() if isinstance(value, dict)]
    shared: dict[str, int] = {}

    def kept(name: str, value: Any) -> Any:
        return shared.setdefault(json.dumps(value), len(shared)) if name in nested else value

    lines = [[kept(name, value) for name, value in vars(row).items()] for row in rows]
    return {
        "fields": list(vars(rows[0])),
        "nested": nested,
        "shared": [json.loads(text) for text in shared],
        "rows": lines,
    }


def _in_script(content: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
