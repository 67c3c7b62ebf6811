"""The whole experiment of a cell, on one screen."""

from benchmark.plan import TEACHER, Cell
from benchmark.rows import Row
from benchmark.source import Source
from benchmark.stages import distill, pretrained_student, probed, teacher_as_student


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
