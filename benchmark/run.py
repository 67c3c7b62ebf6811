"""Run a suite: the whole experiment of a cell on one screen, and every cell in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from benchmark.loop import NonFiniteError
from benchmark.plan import TEACHER, Cell
from benchmark.rows import Row
from benchmark.source import Source
from benchmark.spec import UsageError
from benchmark.stages import (
    OverBudgetError,
    distill,
    pretrained_student,
    probed,
    teacher_as_student,
)


@dataclass
class Outcome:
    """What became of the cells of a run.

    Attributes:
        rows: of all cells that are done.
        skipped: cells whose method cannot do with their budget, and why.
        failed: cells that broke, and why.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)


def run_cell(cell: Cell, source: Source) -> list[Row]:
    """Distil, pretrain, probe: one method, one budget, one student, one seed."""
    if cell.variant.method == TEACHER:
        distilled, student = None, teacher_as_student(source)
    else:
        distilled = distill(cell, source)
        student = pretrained_student(cell, distilled, source)
    return [
        row
        for downstream in source.suite.downstream
        for row in probed(cell, distilled, student, downstream, source)
    ]


def run(cells: Sequence[Cell], source: Source, *, done: Callable[[list[Row]], None]) -> Outcome:
    """Run every cell; `done` gets all rows so far after each, so that nothing is lost.

    A cell that cannot be run or that breaks does not stop the others.
    """
    outcome = Outcome()
    for cell in tqdm(cells, desc="cells", unit="cell", disable=None, dynamic_ncols=True):
        try:
            outcome.rows += run_cell(cell, source)
        except UsageError as error:
            outcome.skipped[cell] = str(error)
        except (OverBudgetError, NonFiniteError) as error:
            outcome.failed[cell] = str(error)
        else:
            done(outcome.rows)
    return outcome
