"""The whole experiment of a cell, on one screen."""

from benchmark.experiment import Experiment
from benchmark.grid import TEACHER, Cell
from benchmark.rows import Row
from benchmark.stages.distillation import distill
from benchmark.stages.pretraining import pretrained_student, teacher_as_student
from benchmark.stages.probing import is_done, probe_student, stored_rows


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
