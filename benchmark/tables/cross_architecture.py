"""Every method with every student, probed on the source dataset at the main budget."""

from collections.abc import Sequence

from benchmark.rows import Row

from ._grid import at, describe, grid, is_variant, main_budget, main_downstream, protocols
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
    return [
        grid(
            [row for row in chosen if (row.probe, row.labels_per_class) == protocol],
            students or ["teacher"],
            lambda row: None if row.student == "teacher" else row.student,
            title=f"Cross-architecture{at(budget)}: {describe(*protocol)}",
            notes=f"Students pretrained on the distilled set, probed on {dataset}.",
        )
        for protocol in protocols(chosen)
    ]
