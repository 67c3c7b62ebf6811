"""Losses of distillation: means over the first and the last quarter of each loop."""

from collections.abc import Sequence
from statistics import fmean

from benchmark.reporting.order import conditions, in_order
from benchmark.reporting.table import Cell, Table, number
from benchmark.rows import Row

from ._sets import by_set, names, one_per_seed

__all__ = ["losses"]

_COLUMNS = ("", "N", "logged value", "first quarter", "last quarter", "seeds where it fell")


def losses(rows: Sequence[Row]) -> list[Table]:
    """Return a table with a row for each method, budget and logged value; none without any."""
    logged = [row for row in in_order(rows) if row.losses and row.N is not None]
    if not logged:
        return []
    body = [
        [*names(*key), *_line(seeds, name)]
        for key, mine in by_set(logged).items()
        for seeds in [one_per_seed(mine)]
        for name in sorted({name for row in seeds for name in row.losses})
    ]
    notes = f"{conditions(logged)}. Means over seeds, also of logged values that no step minimises."
    title = "Losses of distillation"
    return [Table(name="losses", title=title, notes=notes, columns=_COLUMNS, body=body)]


def _line(rows: Sequence[Row], name: str) -> list[Cell]:
    logged = [row for row in rows if name in row.losses]
    keys = [row.key for row in logged]
    first, last = zip(*(row.losses[name] for row in logged), strict=True)
    fell = sum(after < before for before, after in zip(first, last, strict=True))
    return [
        Cell(name),
        *(number(fmean(values), "{:.4g}", keys) for values in (first, last)),
        Cell(f"{fell} of {len(logged)}", value=fell, parts={"of": len(logged)}, keys=tuple(keys)),
    ]
