"""The student of a cell, pretrained on its distilled set."""

import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from torch import Tensor

from benchmark import artifacts, rng
from benchmark.cost import measure
from benchmark.experiment import Experiment
from benchmark.files import lock
from benchmark.grid import Cell, evaluation_of, method_of, recipe_of
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.pretrain import pretrain
from benchmark.spec import ImageShape, Method, TrainingSet, UsageError
from benchmark.stages.distillation import DistilledSet
from benchmark.stages.keys import student_inputs
from benchmark.store import key_of


@dataclass(frozen=True, kw_only=True)
class Student:
    """A pretrained student (or the teacher in its place) and the cost of its pretraining."""

    network: Network
    header: Mapping[str, Any]


def pretrained_student(cell: Cell, distilled: DistilledSet, experiment: Experiment) -> Student:
    """Return the student of a cell, pretrained only on what is decoded from the stored file.

    Raises:
        UsageError: a training set that is decoded is none, or of other images than the source's.
        NonFiniteError: its loss became non-finite.
    """
    suite, device = experiment.suite, experiment.compute.device
    settings = student_inputs(cell, experiment)
    file = experiment.store.student_file(key_of(settings))
    folder = file.parent
    tensors, _ = artifacts.read(distilled.file, device=device)
    data = _decoded(method_of(suite, cell.variant), tensors, experiment.new_network.shape)
    network = experiment.new_network(
        cell.student,
        1 if data is None else data.targets.shape[2],
        rng.generator("student", cell.student, cell.seed),
        **experiment.student_settings(cell.student),
    )
    if data is not None:
        own = evaluation_of(suite, data)
        network.whitening = own.whitening
    with lock(folder):
        if not file.exists():
            loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
            steps, generator = 0, rng.generator("pretrain", cell.seed, device=device)
            with measure(device) as spent, rng.global_stream(generator):
                if data is not None:
                    steps = pretrain(
                        network,
                        data,
                        suite.length,
                        recipe=recipe_of(suite, data.objective, own=own.recipe),
                        generator=generator,
                        checkpoint=loop,
                    )
            header = {
                **settings,
                "steps": steps,
                "objective": None if data is None else data.objective,
                "num_images": None if data is None else data.images.shape[0],
                "num_views": None if data is None else len(data.views),
                "seconds": loop.seconds,
                "peak_memory_mib": spent.peak_memory_mib,
            }
            artifacts.write(file, network.state_dict(), header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    weights, header = artifacts.read(file, device=device)
    network.load_state_dict(weights)
    return Student(network=network.eval(), header=header)


def _decoded(method: Method, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet | None:
    """Return what a method decodes, which may be nothing."""
    made: Any = method.decode(stored, shape)
    if made is None:
        return None
    if not isinstance(made, TrainingSet) or (*made.images.shape[1:],) != astuple(shape):
        raise UsageError(
            f"{type(method).__name__}.decode: expected a TrainingSet of {shape} images, or None"
        )
    return made


def teacher_as_student(experiment: Experiment) -> Student:
    """Return the teacher in a student's place, as an upper reference for pretraining."""
    nothing = dict.fromkeys(("objective", "num_images", "num_views", "peak_memory_mib"))
    return Student(
        network=experiment.teacher.network, header={"steps": 0, "seconds": 0.0, **nothing}
    )
