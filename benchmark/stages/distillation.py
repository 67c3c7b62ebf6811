"""The distilled set of a cell: what its method stores, within its budget."""

import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark import artifacts, rng
from benchmark.cost import measure
from benchmark.experiment import Experiment
from benchmark.files import lock
from benchmark.grid import Cell, method_of, views_of
from benchmark.loop import CheckpointedLoop, CheckpointError
from benchmark.provenance import provenance
from benchmark.spec import FLOAT_BYTES, Method, Problem, UsageError
from benchmark.stages.keys import by_products_key, distilled_inputs
from benchmark.store import key_of


class OverBudgetError(RuntimeError):
    """A method stored more than its budget allows."""


class RefusedError(UsageError):
    """A method refuses a request, such as too small a budget."""


@dataclass(frozen=True, kw_only=True)
class DistilledSet:
    """A stored distilled set; later stages see only its file."""

    key: str
    file: Path
    header: Mapping[str, Any]


def distill(cell: Cell, experiment: Experiment) -> DistilledSet:
    """Return the distilled set of a cell.

    Raises:
        RefusedError: the method refuses this budget.
        OverBudgetError: it stored more than the budget allows.
        NonFiniteError: its loss became non-finite.
    """
    method = method_of(experiment.suite, cell.variant)
    settings = distilled_inputs(cell, experiment)
    key = key_of(settings)
    file = experiment.store.distilled_file(key)
    folder = file.parent
    with lock(folder):
        if experiment.suite.recipe == "own":
            _expect_own(cell, method, experiment)
        if not file.exists():
            problem = _problem(cell, method, experiment)
            for view in views_of(method):
                experiment.representations(view)  # the teacher's cost, not the method's
            loop = CheckpointedLoop(folder / "checkpoints", description=str(cell))
            with measure(experiment.compute.device) as spent, experiment.unchanged():
                tensors = _distilled_tensors(method, problem, cell.seed, loop)
            seconds = loop.seconds  # excluding counting and compressing the set
            header = {
                **settings,
                "shape": astuple(experiment.new_network.shape),
                "storage": artifacts.count_by_component(tensors),
                "num_numbers": artifacts.count_numbers(tensors),
                "num_bytes": artifacts.count_bytes(tensors),
                "compressed_bytes": artifacts.compressed_bytes(tensors),
                "seconds": seconds,
                "peak_memory_mib": spent.peak_memory_mib,
                "history": loop.history,
                "provenance": provenance(experiment.compute.device),
            }
            artifacts.write(file, tensors, header)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return DistilledSet(key=key, file=file, header=artifacts.read_header(file))


def _problem(cell: Cell, method: Method, experiment: Experiment) -> Problem:
    """Return the problem of a cell's method, with a folder for its by-products."""
    problem = experiment.problem(N=cell.N, labels=method.supervision == "labels")
    by_products = experiment.store.folder("by-products", by_products_key(cell, experiment))
    return replace(problem, cache=by_products)


def _expect_own(cell: Cell, method: Method, experiment: Experiment) -> None:
    """Check with a method that its set can be evaluated as published, before it is made or used."""
    try:
        if (ask := getattr(method, "expect_own", None)) is not None:
            loop = CheckpointedLoop(None, description=str(cell))
            ask(_problem(cell, method, experiment), checkpoint=loop)
    except UsageError as error:
        raise RefusedError(f"--recipe own: {error}") from error


def _distilled_tensors(
    method: Method, problem: Problem, seed: int, loop: CheckpointedLoop
) -> dict[str, Tensor]:
    """Return what a method stores, within its budget.

    Raises:
        UsageError: it does not return tensors.
    """
    generator = rng.generator("distill", seed, device=problem.device)
    try:
        with rng.global_stream(generator):
            made: Any = method.distill(problem, generator=generator, checkpoint=loop)
    except CheckpointError:
        raise
    except UsageError as error:
        raise RefusedError(str(error)) from error
    if not isinstance(made, dict) or not all(
        isinstance(name, str) and isinstance(x, Tensor) and _is_stored(x)
        for name, x in made.items()
    ):
        raise UsageError(
            f"{type(method).__name__}.distill: expected a dict of dense tensors by name"
        )
    tensors: dict[str, Tensor] = made
    for name, tensor in tensors.items():
        if tensor.element_size() > FLOAT_BYTES:
            raise OverBudgetError(
                f"stores {name} as {tensor.dtype}: expected at most {FLOAT_BYTES} bytes a number"
            )
    stored, allowed = {
        "numbers": (artifacts.count_numbers(tensors), problem.num_floats),
        "bytes": (artifacts.count_bytes(tensors), FLOAT_BYTES * problem.num_floats),
        "none": (0, 0),
    }[method.limit]
    if stored > allowed:
        raise OverBudgetError(f"stores {stored} {method.limit}, but {allowed} are allowed")
    return tensors


def _is_stored(tensor: Tensor) -> bool:
    """Say whether every number of a tensor has its place in memory."""
    return tensor.layout == torch.strided and not tensor.is_meta
