"""What the key of each stage of a cell covers: everything that can change its result."""

from collections.abc import Mapping
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
    """Return the key of a cell's distilled set, which cells of several students share."""
    if cell.variant.method == TEACHER:
        return TEACHER
    return key_of(distilled_inputs(cell, experiment))


def distilled_inputs(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return everything that a distilled set depends on."""
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
    """Return the key of the folder for by-products that several cells of a method share."""
    code = method_code(cell, experiment)
    return key_of({"protocol": PROTOCOL, **code, **experiment.compute.settings})


def method_code(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return hashes of the code of a cell's method, and of the model that it trains, if any."""
    inner_model = getattr(method_of(experiment.suite, cell.variant), "inner_model", None)
    return {
        "method": plugins.code_of("methods", cell.variant.method),
        "inner_model": inner_model and model_code(inner_model),
    }


def student_inputs(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return everything that a pretrained student depends on."""
    suite = experiment.suite
    return {
        "distilled": key_of(distilled_inputs(cell, experiment)),
        "student": cell.student,
        "settings": experiment.student_settings(cell.student),
        "code": {"student": model_code(cell.student), "pretraining": code_of("benchmark.pretrain")},
        "recipes": {objective: asdict(recipe_of(suite, objective)) for objective in RECIPES},
        "length": asdict(suite.length),
        "own": suite.recipe == "own",
        "seed": cell.seed,
        **experiment.settings,
    }


def evaluation_code() -> str:
    """Return a hash of the code from a distilled set to a number, without that of models."""
    return key_of({name: code_of(f"benchmark.{name}") for name in ("pretrain", "probing")})


def codes(cell: Cell, experiment: Experiment) -> dict[str, str]:
    """Return hashes of the code of a cell's method, with its inner model, and of its student."""
    return {
        "method_code": key_of(method_code(cell, experiment)),
        "student_code": key_of({"student": model_code(cell.student)}),
    }


def features_inputs(cell: Cell, downstream: str, experiment: Experiment) -> dict[str, Any]:
    """Return everything that a cell's frozen features depend on, except the test split."""
    is_teacher = cell.variant.method == TEACHER
    return {
        "student": None if is_teacher else key_of(student_inputs(cell, experiment)),
        "downstream": experiment.splits(downstream).train.fingerprint,
        "code": code_of("benchmark.probing"),
        "seed": cell.seed,
        **experiment.settings,
    }


def row_inputs(
    features: Mapping[str, Any], protocol: Protocol, experiment: Experiment
) -> dict[str, Any]:
    """Return everything that a number depends on, except the test split."""
    return {
        **features,
        "probe": protocol.probe,
        "settings": identity(probe_of(experiment.suite, protocol.probe)),
        "labels_per_class": protocol.labels_per_class,
    }
