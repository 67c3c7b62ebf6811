"""Transfer: every method with the first student, probed on every downstream dataset."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._accuracy import grid
from ._grid import at, datasets, first_student, in_order, is_variant, main_budget
from ._table import Table

__all__ = ["downstream"]


def downstream(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe, none if there is but one dataset."""
    rows = in_order(rows)
    budget, student = main_budget(rows), first_student(rows) or "teacher"
    chosen = [
        row
        for row in rows
        if row.student in (student, "teacher") and row.N in (None, budget) and not is_variant(row)
    ]
    columns = datasets(chosen)
    if len(columns) < 2:
        return []
    return grid(
        chosen,
        columns,
        lambda row: row.downstream,
        name="downstream",
        title=f"Downstream transfer{at(budget)}, {student}",
    )
