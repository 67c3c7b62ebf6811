"""Transfer: every method with the first student, probed on every downstream dataset."""

from collections import defaultdict
from collections.abc import Sequence

from benchmark.grid import TEACHER, Protocol
from benchmark.reporting.order import (
    at,
    datasets,
    first_student,
    in_order,
    is_variant,
    main_budget,
    of_student,
    protocol_of,
)
from benchmark.reporting.table import Table
from benchmark.rows import Row

from ._accuracy import grid

__all__ = ["downstream"]


def downstream(rows: Sequence[Row]) -> list[Table]:
    """Return one table per probe that was fitted on several datasets."""
    rows = in_order(rows)
    budget, student = main_budget(rows), first_student(rows) or TEACHER
    chosen = [
        row for row in of_student(rows, student) if row.N in (None, budget) and not is_variant(row)
    ]
    probed: dict[Protocol, set[str]] = defaultdict(set)
    for row in chosen:
        probed[protocol_of(row)].add(row.downstream)
    chosen = [row for row in chosen if len(probed[protocol_of(row)]) > 1]
    if not chosen:
        return []
    return grid(
        chosen,
        datasets(chosen),
        lambda row: row.downstream,
        name="downstream",
        title=f"Downstream transfer{at(budget)}, {student}",
    )
