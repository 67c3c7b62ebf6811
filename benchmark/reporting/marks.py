"""Which numbers of a column are significantly best, and which do not differ significantly.

Only labels with a budget compete; `untrained`, `full` and `teacher` are shown for reference.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import TypeVar

from benchmark.reporting.markdown import unquoted
from benchmark.reporting.ranks import Scores
from benchmark.reporting.seeds import exceptions
from benchmark.reporting.statistics import LEVEL, Estimate, holm, less, samples_of, summarise
from benchmark.reporting.table import NOISE, Cell, Mark, estimated
from benchmark.rows import Row

_K = TypeVar("_K", bound=Hashable)
Column = Mapping[str, Sequence[Row]]  # the rows of each label, which differ only in seed

_FEW = "fewer than three seeds in common, or no variance over them"


def contestants(column: Column) -> list[str]:
    """Return the labels that have rows, all of them with a budget."""
    return [
        label for label, rows in column.items() if rows and all(row.N is not None for row in rows)
    ]


def baseline(names: Iterable[str]) -> str:
    """Return the baseline's label: `random`, or `random-labels` if only that was run."""
    found = set(names)
    return "random" if "random" in found or "random-labels" not in found else "random-labels"


def against(column: Column, *, reference: str) -> dict[str, Estimate | None]:
    """Return every other contestant minus `reference`, on the seeds and subsets that both have.

    It is None where they have no seed in common, and where `reference` was not run.
    """
    theirs = samples_of(column.get(reference, ()))
    return {
        label: summarise(less(samples_of(column[label]), theirs))
        for label in contestants(column)
        if label != reference
    }


def judged(column: Column, *, reference: str) -> dict[str, tuple[Mark, float | None]]:
    """Return the mark of every contestant of a column, and its corrected p-value.

    `noise`: the paired difference from `reference` is not significant, with Holm's correction over
    all contestants of the column. `best`: the highest mean, significantly above that of every other
    contestant. The latter needs no correction: all tests must reject, so its false positive rate is
    at most that of any one of them.
    """
    ps = corrected(against(column, reference=reference))
    means = {label: mean_value(column[label]) for label in contestants(column)}
    marks: dict[str, Mark] = {
        label: "noise" if ps.get(label, 0.0) >= LEVEL else "" for label in means
    }
    top = max(means, key=lambda label: means[label], default=None)
    if top is not None and not marks[top] and len(means) > 1:
        ours = samples_of(column[top])
        gaps = [summarise(less(ours, samples_of(column[label]))) for label in means if label != top]
        if all(gap and gap.mean > 0 and gap.p is not None and gap.p < LEVEL for gap in gaps):
            marks[top] = "best"
    return {label: (mark, ps.get(label)) for label, mark in marks.items()}


def legend(
    body: Iterable[Sequence[Cell]],
    columns: Mapping[str, Column],
    *,
    reference: str,
    place: str = "of the column that has a budget",
) -> str:
    """Return what the marks of a table mean, and which of its rows could not be compared.

    Args:
        body: its cells.
        columns: the rows behind them, by heading.
        reference: the label that others are tested against.
        place: which rows a bold number is compared with.
    """
    cells = [cell for line in body for cell in line]
    found = {cell.mark for cell in cells}
    meanings = {
        "best": f"Bold: significantly better than every other row {place}.",
        "noise": f"{NOISE}: not significantly different from `{reference}`.",
    }
    sentences = [meaning for mark, meaning in meanings.items() if mark in found]
    sentences += [
        _untested(columns, reference=reference),
        _short(cells),
        exceptions(columns.values()),
        _mixed(columns.values()),
    ]
    return " ".join(filter(None, sentences))


def unproven(body: Iterable[Sequence[Cell]]) -> str:
    """Return why some differences have no p-value or no interval."""
    cells = [cell for line in body for cell in line]
    untested = any("n" in cell.parts and "p" not in cell.parts for cell in cells)
    why = f"No p: not tested ({_FEW})." if untested else ""
    return " ".join(filter(None, (why, _short(cells))))


def _short(cells: Iterable[Cell]) -> str:
    if any(cell.parts.get("n") == 2 and "half-width" not in cell.parts for cell in cells):
        return "No interval: two seeds are too few where a probe sees few labels."
    return ""


def _untested(columns: Mapping[str, Column], *, reference: str) -> str:
    """Return which contestants could not be compared with `reference`, and why."""
    found = {name: against(column, reference=reference) for name, column in columns.items()}
    everyone = list(dict.fromkeys(label for gaps in found.values() for label in gaps))
    lacking = {
        label: [n for n, gaps in found.items() if label in gaps and not _can_be_tested(gaps[label])]
        for label in everyone
    }
    if not any(lacking.values()):
        return ""
    if not any(column.get(reference) for column in columns.values()):
        return f"Nothing is tested against `{reference}`, which was not run."
    if all(len(lacking[name]) == sum(name in gaps for gaps in found.values()) for name in everyone):
        return f"Not tested against `{reference}`: {_FEW}."
    where = ", ".join(f"{name} ({', '.join(at)})" for name, at in lacking.items() if at)
    return f"Not tested against `{reference}`, {_FEW}: {unquoted(where)}."


def _mixed(columns: Iterable[Column]) -> str:
    """Return which labels do not compete although some of their rows have a budget."""
    found = dict.fromkeys(
        label
        for column in columns
        for label, rows in column.items()
        if len({row.N is None for row in rows}) > 1
    )
    names = unquoted(", ".join(found))
    return f"Neither tested nor ranked, as some of their rows lack a budget: {names}." * bool(found)


def _can_be_tested(difference: Estimate | None) -> bool:
    return difference is not None and difference.p is not None


def tested(
    differences: Mapping[_K, Estimate | None],
    keys: Mapping[_K, Sequence[str]] = MappingProxyType({}),
    *,
    counted: bool = False,
) -> dict[_K, Cell]:
    """Return differences as cells with corrected p-values, marked where they are not significant.

    Holm's correction is over all of them; those that cannot be tested have no p-value.

    Args:
        differences: by name.
        keys: by name, of the rows behind them.
        counted: show the number of seeds of each.
    """
    ps = corrected(differences)
    return {
        name: estimated(
            difference,
            keys.get(name, ()),
            sign="+",
            note=(f", n = {difference.n}" if counted and difference else "") + _p(ps.get(name)),
            mark="noise" if ps.get(name, 0.0) >= LEVEL else "",
            parts={"p": ps.get(name)},
        )
        for name, difference in differences.items()
    }


def tested_columns(
    columns: Iterable[Mapping[_K, tuple[Estimate | None, Sequence[str]]]],
) -> list[dict[_K, Cell]]:
    """Return columns of differences and the keys behind them as `tested` does.

    The number of seeds of each is shown unless it is the same everywhere.
    """
    columns = list(columns)
    sizes = {gap.n for column in columns for gap, _ in column.values() if gap is not None}
    return [
        tested(
            {name: gap for name, (gap, _) in column.items()},
            {name: keys for name, (_, keys) in column.items()},
            counted=len(sizes) > 1,
        )
        for column in columns
    ]


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def corrected(differences: Mapping[_K, Estimate | None]) -> dict[_K, float]:
    """Return the corrected p-values of the differences that can be tested."""
    return holm(
        {
            name: difference.p
            for name, difference in differences.items()
            if difference is not None and difference.p is not None
        }
    )


def mean_value(rows: Sequence[Row]) -> float:
    """Return the mean accuracy of rows, whatever their order."""
    return fmean(row.value for row in rows)


def scores(column: Column) -> Scores:
    """Return the accuracy of every contestant by seed."""
    return {label: {row.seed: row.value for row in column[label]} for label in contestants(column)}
