"""Rows grouped by distilled set, for tables with a row for each method and budget."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from benchmark.reporting.order import grouped, labels
from benchmark.reporting.table import MISSING, Cell, number
from benchmark.rows import Row


def by_set(rows: Sequence[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """Return the rows of each label and budget: labels in canonical order, budgets ascending."""
    rank = {label: position for position, label in enumerate(labels(rows))}
    ordered = sorted(rows, key=lambda row: (rank[row.label], row.N or 0))
    return grouped(ordered, lambda row: (row.label, row.N))


def one_per_seed(rows: Iterable[Row]) -> list[Row]:
    """Return one row per seed, for values that do not depend on the probe or its dataset."""
    return list({row.seed: row for row in sorted(rows, key=lambda row: row.seed)}.values())


def names(label: str, N: int | None) -> list[Cell]:
    """Return the first two cells of a table row."""
    return [Cell(label), number(N, "{}")]


def images(row: Row) -> Cell:
    """Return how many distilled images the student saw, and how many views of each."""
    if row.num_images is None:
        return MISSING
    return Cell(
        f"{row.num_images:,} x {row.num_views}",
        value=row.num_images,
        parts={"views": row.num_views},
        keys=(row.key,),
    )


def mean(rows: Sequence[Row], value: Callable[[Row], float | None], form: str) -> Cell:
    """Return the mean of a value over the rows that have it; a dash if none has."""
    found = {row.key: x for row in rows if (x := value(row)) is not None}
    return number(fmean(found.values()) if found else None, form, list(found))
