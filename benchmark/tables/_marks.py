"""Which numbers of a column are best, and which are inside the noise: both are tests.

Contestants are what has a budget; `untrained`, `full` and `teacher` are there to be looked at.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from scipy.stats import rankdata

from benchmark.rows import Row

from ._statistics import LEVEL, Estimate, holm, less, samples_of, summarise
from ._table import NOISE, Cell, Mark, estimated

_K = TypeVar("_K", bound=Hashable)
Column = Mapping[str, Sequence[Row]]  # the rows of each label, which differ in their seeds alone


def contestants(column: Column) -> list[str]:
    """Return the labels that have both a number and a budget."""
    return [label for label, rows in column.items() if rows and rows[0].N is not None]


def baseline(names: Iterable[str]) -> str:
    """Return the label of random images: of `random-labels` only where nobody ran `random`."""
    found = set(names)
    return "random" if "random" in found or "random-labels" not in found else "random-labels"


def marks(column: Column, *, reference: str) -> dict[str, Mark]:
    """Return the marks of a column.

    `noise`: the paired difference from `reference` is not significant, Holm's correction made for
    all contestants of the column. `best`: the highest mean, significantly above that of every other
    contestant. The latter needs no correction: it takes all of the tests, so the rarest of their
    false alarms bounds its own.
    """
    found: dict[str, Mark] = {}
    samples = {label: samples_of(column[label]) for label in contestants(column)}
    if reference in samples:
        differences = {
            label: summarise(less(samples[label], samples[reference]))
            for label in samples
            if label != reference
        }
        found |= {label: "noise" for label, p in corrected(differences).items() if p >= LEVEL}
    top = max(samples, key=lambda label: mean_value(column[label]), default=None)
    if top is not None and top not in found and len(samples) > 1:
        gaps = [summarise(less(samples[top], samples[label])) for label in samples if label != top]
        if all(gap and gap.mean > 0 and gap.p is not None and gap.p < LEVEL for gap in gaps):
            found[top] = "best"
    return found


def legend(body: Iterable[Sequence[Cell]], *, reference: str) -> str:
    """Return what the marks of a table mean, those that it has."""
    found = {cell.mark for line in body for cell in line}
    meanings = {
        "best": "Bold: best in its column by a test against every other line with a budget.",
        "noise": f"{NOISE}: inside the noise of `{reference}`.",
    }
    return " ".join(meaning for mark, meaning in meanings.items() if mark in found)


def tested(
    differences: Mapping[_K, Estimate | None],
    keys: Mapping[_K, Sequence[str]] = MappingProxyType({}),
) -> dict[_K, Cell]:
    """Return differences as cells: with their corrected probabilities, marked where they are noise.

    Holm's correction is for all of them; those that cannot be tested have no probability.

    Args:
        differences: by name.
        keys: by name, of the rows behind them.
    """
    p = corrected(differences)
    return {
        name: estimated(
            difference,
            keys.get(name, ()),
            sign="+",
            note=_probability(p[name]) if name in p else "",
            mark="noise" if p.get(name, 0.0) >= LEVEL else "",
        )
        for name, difference in differences.items()
    }


def _probability(p: float) -> str:
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def corrected(differences: Mapping[_K, Estimate | None]) -> dict[_K, float]:
    """Return the corrected probabilities of the differences that can be tested at all."""
    return holm(
        {
            name: difference.p
            for name, difference in differences.items()
            if difference is not None and difference.p is not None
        }
    )


def mean_value(rows: Sequence[Row]) -> float:
    """Return the mean accuracy of rows."""
    return sum(row.value for row in rows) / len(rows)


def average_ranks(columns: Sequence[Column]) -> dict[str, float]:
    """Return each contestant's mean rank (1 is the highest accuracy, equal ones share a rank).

    Only columns that every contestant fills take part, so that nobody gains by being absent from a
    hard one; there are no ranks if there is no such column or no competition.
    """
    everyone = {label for column in columns for label in contestants(column)}
    full = [column for column in columns if everyone == set(contestants(column))]
    if len(everyone) < 2 or not full:
        return {}
    names = sorted(everyone)
    means = [[-mean_value(column[name]) for name in names] for column in full]
    return dict(zip(names, rankdata(means, axis=1).mean(0).tolist(), strict=True))
