"""Average ranks: who is ahead over all columns of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import rankdata

from ._table import Cell, number


@dataclass(frozen=True)
class Ranks:
    """Mean ranks by label, and what a reader must know of them; both empty without competition."""

    of: Mapping[str, float]
    note: str

    @property
    def headings(self) -> list[str]:
        """Return the heading of their column, if there is one."""
        return ["average rank"] if self.of else []

    def cells(self, label: str) -> list[Cell]:
        """Return the cell of their column, if there is one."""
        return [number(self.of.get(label), "{:.2f}")] if self.of else []


def average_ranks(columns: Sequence[Mapping[str, float]], *, noun: str = "columns") -> Ranks:
    """Return each contestant's mean rank (1 is the highest score, equal ones share a rank).

    Only columns that every contestant fills take part, so that nobody gains by being absent from a
    hard one; the note says how many these are.

    Args:
        columns: in each, the scores of its contestants.
        noun: what columns are in the note.
    """
    names = sorted({label for column in columns for label in column})
    full = [column for column in columns if len(column) == len(names)]
    if len(names) < 2:
        return Ranks({}, "")
    if not full:
        return Ranks(
            {}, f"No average rank: none of the {noun} is filled by all that have a budget."
        )
    share = f"all {noun}" if len(full) == len(columns) else f"{len(full)} of {len(columns)} {noun}"
    note = f"Average rank: of lines with a budget, over {share}"
    note += "." if len(full) == len(columns) else ", which all of these fill."
    ranks = rankdata([[-column[name] for name in names] for column in full], axis=1).mean(0)
    return Ranks(dict(zip(names, ranks.tolist(), strict=True)), note)
