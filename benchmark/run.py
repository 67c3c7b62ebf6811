"""The whole experiment of a cell, on one screen."""

from benchmark.experiment import Experiment
from benchmark.grid import TEACHER, Cell
from benchmark.rows import Row
from benchmark.stages import (
    distill,
    is_done,
    pretrained_student,
    probe_student,
    stored_rows,
    teacher_as_student,
)


def run_cell(cell: Cell, experiment: Experiment) -> list[Row]:
    """Distil, pretrain, probe: one method, one budget, one student, one seed."""
    if not is_done(cell, experiment):
        if cell.variant.method == TEACHER:
            distilled, student = None, teacher_as_student(experiment)
        else:
            distilled = distill(cell, experiment)
            student = pretrained_student(cell, distilled, experiment)
        for downstream in experiment.suite.downstream:
            probe_student(cell, distilled, student, downstream, experiment)
    return stored_rows(cell, experiment)
