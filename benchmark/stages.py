"""The stages of a cell: each is looked up in the store before it is done, and kept there."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark import artifacts, rng
from benchmark.cost import measure
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.plan import TEACHER, Cell, method_of
from benchmark.pretrain import RECIPES, pretrain
from benchmark.provenance import provenance
from benchmark.rows import PROTOCOL
from benchmark.source import Source
from benchmark.store import key_of


class OverBudgetError(RuntimeError):
    """A method stored more numbers than its budget allows."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A stored distilled set; its file is all that later stages see of it."""

    key: str
    file: Path
    header: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A pretrained student (or the teacher in its place) and what its pretraining took."""

    network: Network
    header: Mapping[str, Any]


def distill(cell: Cell, source: Source) -> Distilled:
    """Return the distilled set of a cell.

    Raises:
        UsageError: the method cannot do with this budget.
        OverBudgetError: it stored more than it may.
        NonFiniteError: its loss stopped being a number.
    """
    method = method_of(source.suite, cell.variant)
    settings = _distilled_settings(cell, source)
    key = key_of(settings)
    folder = source.store.folder("distilled", key)
    file = folder / "distilled.safetensors"
    if not file.exists():
        device = source.compute.device
        problem = source.problem(N=cell.N, labels=method.supervision == "labels")
        loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
        generator = rng.generator("distill", cell.seed, device=device)
        with measure(device) as spent:
            tensors = method.distill(problem, generator=generator, checkpoint=loop)
        numbers = artifacts.count_numbers(tensors)
        if method.bounded and numbers > problem.num_floats:
            raise OverBudgetError(f"stores {numbers} numbers, but {problem.num_floats} are allowed")
        header = {
            **settings,
            "num_numbers": numbers,
            "seconds": loop.seconds,
            "peak_memory_mib": spent.peak_memory_mib,
            "history": loop.history,
            "provenance": provenance(device),
        }
        artifacts.write(file, tensors, header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return Distilled(key=key, file=file, header=artifacts.read_header(file))


def pretrained_student(cell: Cell, distilled: Distilled, source: Source) -> Student:
    """Return the student of a cell, pretrained on what is decoded from the stored file alone.

    Raises:
        NonFiniteError: its loss stopped being a number.
    """
    suite, device = source.suite, source.compute.device
    settings = _student_settings(cell, source)
    key = key_of(settings)
    folder = source.store.folder("students", key)
    file = folder / "student.safetensors"
    tensors, _ = artifacts.read(distilled.file, device=device)
    data = method_of(suite, cell.variant).decode(tensors, source.new_network.shape)
    network = source.new_network(
        cell.student,
        1 if data is None else data.targets.shape[2],
        rng.generator("student", cell.student, cell.seed, device=device),
        **suite.settings.get(cell.student, {}),
    )
    if not file.exists():
        loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
        steps = 0
        with measure(device) as spent:
            if data is not None:
                steps = pretrain(
                    network,
                    data,
                    suite.lengths[suite.recipe],
                    recipe=RECIPES[data.objective],
                    generator=rng.generator("pretrain", cell.seed, device=device),
                    checkpoint=loop,
                )
        header = {
            **settings,
            "steps": steps,
            "num_images": None if data is None else len(data.images),
            "num_views": None if data is None else len(data.views),
            "seconds": loop.seconds,
            "peak_memory_mib": spent.peak_memory_mib,
        }
        artifacts.write(file, network.backbone.state_dict(), header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    weights, header = artifacts.read(file, device=device)
    network.backbone.load_state_dict(weights)
    return Student(network=network.eval(), header=header)


def teacher_as_student(source: Source) -> Student:
    """Return the teacher in a student's place: what pretraining could reach at best."""
    nothing = {"num_images": None, "num_views": None, "peak_memory_mib": None}
    return Student(network=source.teacher.network, header={"steps": 0, "seconds": 0.0, **nothing})


def _distilled_settings(cell: Cell, source: Source) -> dict[str, Any]:
    method = method_of(source.suite, cell.variant)
    return {
        "protocol": PROTOCOL,
        "method": cell.variant.method,
        "settings": asdict(method),  # type: ignore[call-overload]
        "N": cell.N,
        "seed": cell.seed,
        **source.settings,
    }


def _student_settings(cell: Cell, source: Source) -> dict[str, Any]:
    suite = source.suite
    return {
        "protocol": PROTOCOL,
        "distilled": key_of(_distilled_settings(cell, source)),
        "student": cell.student,
        "settings": dict(suite.settings.get(cell.student, {})),
        "recipes": {objective: asdict(recipe) for objective, recipe in RECIPES.items()},
        "length": asdict(suite.lengths[suite.recipe]),
        "seed": cell.seed,
        **source.settings,
    }
