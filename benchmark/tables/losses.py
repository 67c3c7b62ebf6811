"""What distillation lowered: every logged loss over the first and the last quarter of its loop."""

from collections.abc import Sequence
from statistics import fmean

from benchmark.rows import Row

from ._grid import conditions, labels
from ._table import Cell, Table, number

__all__ = ["losses"]


def losses(rows: Sequence[Row]) -> list[Table]:
    """Return one table, a line for each method, budget and logged value; none if nothing was."""
    sets = {(row.label, row.N, row.seed): row for row in rows if row.losses}
    body = []
    for label in labels(sets.values()):
        mine = [row for row in sets.values() if row.label == label]
        for budget in sorted({row.N for row in mine if row.N is not None}):
            seeds = [row for row in mine if budget == row.N]
            names = sorted({name for row in seeds for name in row.losses})
            body += [[Cell(label), number(budget, "{}"), *_line(seeds, name)] for name in names]
    if not body:
        return []
    notes = (
        f"{conditions(list(sets.values()))}. Means over seeds; what no step lowers is shown too."
    )
    columns = ["", "N", "logged value", "first quarter", "last quarter", "seeds where it fell"]
    title = "Losses of distillation"
    return [Table(name="losses", title=title, notes=notes, columns=columns, body=body)]


def _line(rows: Sequence[Row], name: str) -> list[Cell]:
    logged = [row for row in rows if name in row.losses]
    keys = [row.key for row in logged]
    pairs = [row.losses[name] for row in logged]
    fell = sum(last < first for first, last in pairs)
    means = [number(fmean(values), "{:.4g}", keys) for values in zip(*pairs, strict=True)]
    return [Cell(name), *means, Cell(f"{fell} of {len(pairs)}", value=fell, keys=tuple(keys))]
