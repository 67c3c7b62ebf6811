"""What the key of each stage of a cell covers: all that can change what the stage gives."""

from dataclasses import asdict
from typing import Any

from benchmark import plugins
from benchmark.experiment import Experiment
from benchmark.grid import TEACHER, Cell, Protocol, method_of, probe_of, recipe_of
from benchmark.network_factory import model_code
from benchmark.pretrain import RECIPES
from benchmark.rows import PROTOCOL
from benchmark.settings import identity
from benchmark.source_code import code_of
from benchmark.store import key_of


def distilled_key(cell: Cell, experiment: Experiment) -> str:
    """Return the key of a cell's distilled set; cells of several students share it."""
    if cell.variant.method == TEACHER:
        return TEACHER
    return key_of(distilled_settings(cell, experiment))


def distilled_settings(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return all that a distilled set depends on."""
    method = method_of(experiment.suite, cell.variant)
    return {
        "method": cell.variant.method,
        "settings": identity(method),
        "code": method_code(cell, experiment),
        "N": cell.N,
        "seed": cell.seed,
        **experiment.settings,
    }


def by_products_key(cell: Cell, experiment: Experiment) -> str:
    """Return the key of the folder in which a method keeps what several of its cells use."""
    code = method_code(cell, experiment)
    return key_of({"protocol": PROTOCOL, **code, **experiment.compute.settings})


def method_code(cell: Cell, experiment: Experiment) -> dict[str, str | None]:
    """Return hashes of the code of a cell's method, and of the model that it trains, if any."""
    inner_model = getattr(method_of(experiment.suite, cell.variant), "inner_model", None)
    return {
        "method": plugins.code_of("methods", cell.variant.method),
        "inner_model": inner_model and model_code(inner_model),
    }


def student_settings(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return all that a pretrained student depends on."""
    suite = experiment.suite
    return {
        "distilled": key_of(distilled_settings(cell, experiment)),
        "student": cell.student,
        "settings": experiment.student_settings(cell.student),
        "code": {"student": model_code(cell.student), "pretraining": code_of("benchmark.pretrain")},
        "recipes": {objective: asdict(recipe_of(suite, objective)) for objective in RECIPES},
        "length": asdict(suite.lengths[suite.recipe]),
        "own": suite.recipe == "own",
        "seed": cell.seed,
        **experiment.settings,
    }


def evaluation_code() -> str:
    """Return a hash of the code between a distilled set and a number, but for the models'."""
    return key_of({name: code_of(f"benchmark.{name}") for name in ("pretrain", "probing")})


def features_settings(cell: Cell, downstream: str, experiment: Experiment) -> dict[str, Any]:
    """Return all that a cell's frozen features depend on, but for what the test split holds."""
    is_teacher = cell.variant.method == TEACHER
    return {
        "student": None if is_teacher else key_of(student_settings(cell, experiment)),
        "downstream": experiment.splits(downstream).train.fingerprint,
        "code": code_of("benchmark.probing"),
        "seed": cell.seed,
        **experiment.settings,
    }


def row_settings(
    cell: Cell, downstream: str, protocol: Protocol, experiment: Experiment
) -> dict[str, Any]:
    """Return all that a number depends on, but for what the test split holds."""
    return {
        **features_settings(cell, downstream, experiment),
        "probe": protocol.probe,
        "settings": identity(probe_of(experiment.suite, protocol.probe)),
        "labels_per_class": protocol.labels_per_class,
    }
