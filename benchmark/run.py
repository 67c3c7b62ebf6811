"""The whole experiment of a cell, on one screen."""

from benchmark.grid import TEACHER, Cell
from benchmark.rows import Row
from benchmark.source import Source
from benchmark.stages import (
    distill,
    is_done,
    pretrained_student,
    probe_student,
    stored_rows,
    teacher_as_student,
)


def run_cell(cell: Cell, source: Source) -> list[Row]:
    """Distil, pretrain, probe: one method, one budget, one student, one seed."""
    if not is_done(cell, source):
        if cell.variant.method == TEACHER:
            distilled, student = None, teacher_as_student(source)
        else:
            distilled = distill(cell, source)
            student = pretrained_student(cell, distilled, source)
        for downstream in source.suite.downstream:
            probe_student(cell, distilled, student, downstream, source)
    return stored_rows(cell, source)
