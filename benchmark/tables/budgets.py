"""Storage budgets: every method with the first student, probed on the source dataset."""

from collections.abc import Sequence

from benchmark.reporting.order import (
    first_student,
    in_order,
    is_variant,
    joined,
    main_downstream,
    of_student,
    probed_on,
)
from benchmark.reporting.table import Table
from benchmark.rows import Row

from ._accuracy import grid

__all__ = ["budgets"]


def budgets(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe; none if there is only one budget."""
    rows = in_order(rows)
    student, dataset = first_student(rows), main_downstream(rows)
    chosen = [
        row
        for row in of_student(rows, student)
        if row.downstream == dataset and not is_variant(row)
    ]
    sizes = sorted({row.N for row in chosen if row.N is not None})
    if len(sizes) < 2:
        return []
    return grid(
        chosen,
        [f"N = {size}" for size in sizes],
        lambda row: None if row.N is None else f"N = {row.N}",
        name="budgets",
        title=f"Storage budgets, {student}",
        notes=joined(probed_on(dataset), "Rows without a budget are repeated in every column."),
    )
