"""A table: what every file here makes, and what a report is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, what a reader must know, and cells as text; the first column names the row."""

    title: str
    notes: str = ""
    columns: Sequence[str]
    body: Sequence[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as a Markdown section."""
        frame = pd.DataFrame(list(self.body), columns=list(self.columns))
        alignment = ["left"] + ["right"] * (len(self.columns) - 1)
        grid = frame.to_markdown(index=False, colalign=alignment, disable_numparse=True)
        return "\n\n".join(part for part in (f"### {self.title}", self.notes, grid) if part)
