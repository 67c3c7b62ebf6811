"""Which tasks of a plan are done already, as their results are in the store."""

from collections.abc import Iterable

from benchmark.experiment import Experiment
from benchmark.grid import TEACHER, Cell, protocols
from benchmark.planning import keys
from benchmark.stages.keys import distilled_key, student_inputs
from benchmark.stages.probing import missing
from benchmark.store import key_of
from benchmark.views import VIEWS


def stored_tasks(cells: Iterable[Cell], experiment: Experiment) -> Iterable[keys.Key]:
    """Yield the keys of tasks whose results are in the store, without making anything."""
    if not experiment.teacher_origin.exists:
        return
    yield keys.TEACHER
    yield from (
        keys.representations(view) for view in VIEWS if experiment.has_representations(view)
    )
    for cell in cells:
        place = cell.variant.label, cell.N, cell.seed
        if cell.variant.method != TEACHER:
            if experiment.store.distilled_file(distilled_key(cell, experiment)).exists():
                yield keys.distillation(*place)
            if experiment.store.student_file(key_of(student_inputs(cell, experiment))).exists():
                yield keys.pretraining(*place, cell.student)
        for downstream in experiment.suite.downstream:
            features = keys.features(*place, cell.student, downstream)
            left = missing(cell, downstream, experiment)
            if not left:
                yield features
            for protocol in protocols(experiment.suite, cell.variant, downstream):
                if protocol not in left:
                    yield keys.probe(features, *protocol)
