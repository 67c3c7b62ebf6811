"""A table: the main building block of a report."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Literal

from tabulate import tabulate

from benchmark.reporting import latex, markdown
from benchmark.reporting.statistics import Estimate

Mark = Literal["", "best", "noise"]

NOISE = "≈"

_FORMULA = re.compile(r"[=+\-@\t\r]")  # how text begins that spreadsheets run as a formula
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Cell:
    """One field of a table.

    Attributes:
        text: what a reader sees, without the mark.
        value: what the field sorts by and what CSV holds; None for words and for missing numbers.
        parts: further values behind the text, by name: each is a column of CSV. For a mean,
            `half-width` is that of its 95 % interval, `n` its number of seeds, and `p` a p-value as
            in `marks.py`.
        keys: of the rows that the field summarises.
        mark: `best` (significantly) or `noise` (not significant), see `marks.py`.
    """

    text: str
    _: KW_ONLY
    value: int | float | None = None
    parts: Mapping[str, int | float | str | None] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid of cells; the first column names the row.

    Attributes:
        name: of its files, unique within a report.
        title: one line.
        notes: what a reader must know.
        columns: their headings.
        body: one cell for each column.
        headline: False for tables of secondary importance: those of other probes and budgets.
        num_summaries: how many of the last rows summarise those above; they are not sorted.
    """

    name: str
    title: str
    notes: str = ""
    columns: Sequence[str]
    body: Sequence[Sequence[Cell]] = field(default_factory=list)
    headline: bool = True
    num_summaries: int = 0

    def __post_init__(self) -> None:
        """Refuse a name that not every file system accepts, and rows of other lengths."""
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a table's files")
        if odd := {len(line) for line in self.body} - {len(self.columns)}:
            raise ValueError(f"table {self.name}: {min(odd)} cells for {len(self.columns)} columns")

    def markdown(self) -> str:
        """Return the table as a Markdown section."""
        texts = [[_in_markdown(cell) for cell in line] for line in self.body]
        grid = tabulate(
            texts,
            [markdown.escape(name) for name in self.columns],
            tablefmt="pipe",
            colalign=["left"] + ["right"] * (len(self.columns) - 1),
            disable_numparse=True,
        )
        title = f"### {markdown.escape(self.title)}"
        return "\n\n".join(filter(None, (title, markdown.inline(self.notes), grid)))

    def csv(self) -> str:
        """Return the table as CSV, a missing number being an empty field.

        Numbers have ten significant digits. A column with parts or marks is followed by one column
        for each of these. Text that a spreadsheet would run as a formula (it begins with = + - @, a
        tab or a carriage return, and is not a number) is prefixed with an apostrophe.
        """
        names, columns = [], []
        for position, name in enumerate(self.columns):
            cells = [line[position] for line in self.body]
            names.append(name)
            columns.append([_in_csv(cell) for cell in cells])
            for part in dict.fromkeys(part for cell in cells for part in cell.parts):
                names.append(f"{name} {part}".strip())
                columns.append([_ten_digits(cell.parts.get(part)) for cell in cells])
            if any(cell.mark for cell in cells):
                names.append(f"{name} mark".strip())
                columns.append([cell.mark for cell in cells])
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([map(_inert, names), *zip(*columns, strict=True)])
        return stream.getvalue()

    def latex(self) -> str:
        """Return the table as LaTeX for the packages array, booktabs and longtable."""
        return latex.tabulars(
            [[_in_latex(cell) for cell in line] for line in self.body],
            columns=self.columns,
            caption=" ".join(part for part in (f"{self.title}.", self.notes) if part),
            label=f"tab:{self.name}",
        )


MISSING = Cell("–")


def number(value: int | float | None, form: str, keys: Sequence[str] = ()) -> Cell:
    """Return a number in a format such as ``{:,.0f}``, or a dash if there is none."""
    if value is None:
        return MISSING
    return Cell(form.format(value), value=value, keys=tuple(keys))


def estimated(
    estimate: Estimate | None,
    keys: Sequence[str] = (),
    *,
    sign: Literal["", "+"] = "",
    note: str = "",
    mark: Mark = "",
    parts: Mapping[str, float | None] = MappingProxyType({}),
) -> Cell:
    """Return a mean with its interval, or a dash if there is none.

    Args:
        estimate: of an accuracy, or of a difference if `sign` is to be shown.
        keys: of the rows behind it.
        sign: `+` for differences.
        note: what follows the numbers.
        mark: of the cell.
        parts: the values in the note, and any others; None is left out.
    """
    if estimate is None:
        return MISSING
    known = {"half-width": estimate.half_width, "n": estimate.n, **parts}
    return Cell(
        f"{estimate:{sign}}{note}",
        value=estimate.mean,
        parts={name: part for name, part in known.items() if part is not None},
        keys=tuple(keys),
        mark=mark,
    )


def _in_markdown(cell: Cell) -> str:
    text = markdown.escape(cell.text)
    return {"": text, "best": f"**{text}**", "noise": f"{text} {NOISE}"}[cell.mark]


def _in_csv(cell: Cell) -> str | int | float | None:
    if cell.value is not None:
        return _ten_digits(cell.value)
    return None if cell == MISSING else _inert(cell.text)


def _inert(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _ten_digits(value: int | float | str | None) -> int | float | str | None:
    """Round a float to ten significant digits, as machines differ in the last ones."""
    if isinstance(value, str):
        return _inert(value)
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _in_latex(cell: Cell) -> str:
    text = latex.escape(cell.text)
    return {"": text, "best": rf"\textbf{{{text}}}", "noise": rf"{text} $\approx$"}[cell.mark]
