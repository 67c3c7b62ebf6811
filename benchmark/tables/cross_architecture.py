"""Every method with every student, probed on the source dataset at the main budget."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._grid import at, grid, is_variant, main_budget, main_downstream
from ._table import Table

__all__ = ["cross_architecture"]


def cross_architecture(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe; what has no student stands in every column."""
    budget, dataset = main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.downstream == dataset and row.N in (None, budget) and not is_variant(row)
    ]
    students = list(dict.fromkeys(row.student for row in chosen if row.student != "teacher"))
    return grid(
        chosen,
        students or ["teacher"],
        lambda row: None if row.student == "teacher" else row.student,
        name="cross-architecture",
        title=f"Cross-architecture{at(budget)}",
        notes=f"Students pretrained on the distilled set, probed on {dataset}.",
    )
