"""Average ranks: who is ahead over all columns of a table."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from scipy.stats import rankdata

from benchmark.reporting.seeds import Seeds, listed
from benchmark.reporting.table import Cell, number

_K = TypeVar("_K", bound=Hashable)
DECIMALS = 9  # of per cent: a hit is far more, even among a million images

Scores = Mapping[str, Mapping[int, float]]  # of each contestant, by seed


@dataclass(frozen=True)
class Ranks:
    """Mean ranks by label, and a note on them; both empty with fewer than two contestants."""

    of: Mapping[str, float]
    note: str

    @property
    def headings(self) -> list[str]:
        """Return the heading of their column, if there is one."""
        return ["average rank"] if self.of else []

    def cells(self, label: str) -> list[Cell]:
        """Return the cell of their column, if there is one."""
        return [number(self.of.get(label), "{:.2f}")] if self.of else []


def average_ranks(columns: Sequence[Scores], *, noun: str = "columns") -> Ranks:
    """Return each contestant's mean rank (1 is the highest score; ties share a rank).

    Only columns with scores of every contestant count, so that none gains by being absent from a
    hard one, and of these only the common seeds; the note says how many these are.

    Args:
        columns: the scores of the contestants, column by column.
        noun: what columns are in the note.
    """
    names = sorted({label for column in columns for label in column})
    if len(names) < 2:
        return Ranks({}, "")
    full = [column for column in columns if len(column) == len(names)]
    common = [means for column in full if (means := common_means(column))]
    if not common:
        why = f"none of the {noun} has numbers for every row with a budget"
        return Ranks({}, f"No average rank: {why}{' on a common seed' if full else ''}.")
    note = f"Average rank: among rows with a budget, over {_share(columns, full, common, noun)}"
    ranks = rankdata([[-means[name] for name in names] for means in common], axis=1).mean(0)
    return Ranks(dict(zip(names, ranks.tolist(), strict=True)), note + _restriction(full))


def _share(
    columns: Sequence[Scores],
    full: Sequence[Scores],
    common: Sequence[Mapping[str, float]],
    noun: str,
) -> str:
    """Return in words which columns take part."""
    if len(common) == len(columns):
        return f"all {noun}."
    how = "" if len(common) == len(full) else " on common seeds"
    return f"{len(common)} of {len(columns)} {noun}, where all of them have numbers{how}."


def _restriction(columns: Sequence[Scores]) -> str:
    """Return a sentence on the seeds that ranks use, if these are not all."""
    if all(
        frozenset(by_seed) == common_seeds(each) for each in columns for by_seed in each.values()
    ):
        return ""
    found = {seeds for each in columns if (seeds := common_seeds(each))}
    which = f" ({listed(*found)})" if len(found) == 1 else ""
    return f" Ranks use means over the seeds that all of them have{which}."


def common_seeds(scores: Mapping[_K, Mapping[int, float]]) -> Seeds:
    """Return the seeds that all contestants have."""
    return Seeds.intersection(*map(Seeds, scores.values())) if scores else Seeds()


def common_means(scores: Mapping[_K, Mapping[int, float]]) -> dict[_K, float]:
    """Return every contestant's mean over the common seeds; empty if there are none.

    Equally many hits give equal means: these are without the rounding of each seed's per cent.
    """
    seeds = sorted(common_seeds(scores))
    return {
        label: round(fmean(by_seed[seed] for seed in seeds), DECIMALS)
        for label, by_seed in scores.items()
        if seeds
    }
