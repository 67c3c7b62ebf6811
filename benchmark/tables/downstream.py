"""Transfer: every method with the first student, probed on every downstream dataset."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._grid import at, first_student, grid, is_variant, main_budget
from ._table import Table

__all__ = ["downstream"]


def downstream(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe, none if there is but one dataset."""
    budget, student = main_budget(rows), first_student(rows) or "teacher"
    chosen = [
        row
        for row in rows
        if row.student in (student, "teacher") and row.N in (None, budget) and not is_variant(row)
    ]
    datasets = list(dict.fromkeys(row.downstream for row in chosen))
    if len(datasets) < 2:
        return []
    return grid(
        chosen,
        datasets,
        lambda row: row.downstream,
        name="downstream",
        title=f"Downstream transfer{at(budget)}, {student}",
    )
