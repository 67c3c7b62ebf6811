"""Every method with every student, probed on the source dataset at the main budget."""

from collections.abc import Sequence

from benchmark.grid import TEACHER
from benchmark.reporting.order import (
    at,
    in_order,
    is_variant,
    joined,
    main_budget,
    main_downstream,
    own_student,
    probed_on,
    students,
)
from benchmark.reporting.table import Table
from benchmark.rows import Row

from ._accuracy import grid

__all__ = ["cross_architecture"]


def cross_architecture(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe; rows without a student are repeated in every column."""
    rows = in_order(rows)
    budget, dataset = main_budget(rows), main_downstream(rows)
    chosen = [
        row
        for row in rows
        if row.downstream == dataset and row.N in (None, budget) and not is_variant(row)
    ]
    return grid(
        chosen,
        students(chosen) or [TEACHER],
        own_student,
        name="cross-architecture",
        title=f"Cross-architecture{at(budget)}",
        notes=joined("Students pretrained on the distilled set.", probed_on(dataset)),
    )
