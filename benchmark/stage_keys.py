"""What the key of each stage of a cell covers: all that can change what the stage gives."""

from dataclasses import asdict
from typing import Any

from benchmark import plugins
from benchmark.grid import TEACHER, Cell, Protocol, method_of, probe_of, recipe_of
from benchmark.network_factory import model_code
from benchmark.pretrain import RECIPES
from benchmark.rows import PROTOCOL
from benchmark.source import Source
from benchmark.store import key_of


def distilled_key(cell: Cell, source: Source) -> str:
    """Return the key of a cell's distilled set; cells of several students share it."""
    if cell.variant.method == TEACHER:
        return TEACHER
    return key_of(distilled_settings(cell, source))


def distilled_settings(cell: Cell, source: Source) -> dict[str, Any]:
    """Return all that a distilled set depends on."""
    method = method_of(source.suite, cell.variant)
    return {
        "protocol": PROTOCOL,
        "method": cell.variant.method,
        "settings": asdict(method),
        "code": method_code(cell, source),
        "N": cell.N,
        "seed": cell.seed,
        **source.settings,
    }


def by_products_key(cell: Cell, source: Source) -> str:
    """Return the key of what methods keep for other cells of theirs, under keys of their own."""
    code = method_code(cell, source)
    return key_of({"protocol": PROTOCOL, **code, **source.compute.settings})


def method_code(cell: Cell, source: Source) -> dict[str, str | None]:
    """Return hashes of the code of a cell's method, and of the model that it trains, if any."""
    inner_model = getattr(method_of(source.suite, cell.variant), "inner_model", None)
    return {
        "method": plugins.code_of("methods", cell.variant.method),
        "inner_model": inner_model and model_code(inner_model),
    }


def student_settings(cell: Cell, source: Source) -> dict[str, Any]:
    """Return all that a pretrained student depends on."""
    suite = source.suite
    return {
        "protocol": PROTOCOL,
        "distilled": key_of(distilled_settings(cell, source)),
        "student": cell.student,
        "settings": source.student_settings(cell.student),
        "code": model_code(cell.student),
        "recipes": {objective: asdict(recipe_of(suite, objective)) for objective in RECIPES},
        "length": asdict(suite.lengths[suite.recipe]),
        "own": suite.recipe == "own",
        "seed": cell.seed,
        **source.settings,
    }


def row_settings(cell: Cell, downstream: str, protocol: Protocol, source: Source) -> dict[str, Any]:
    """Return all that a number depends on, but for what the test split holds."""
    is_teacher = cell.variant.method == TEACHER
    return {
        "protocol": PROTOCOL,
        "student": None if is_teacher else key_of(student_settings(cell, source)),
        "downstream": source.splits(downstream).train.fingerprint,
        "probe": protocol.probe,
        "settings": asdict(probe_of(source.suite, protocol.probe)),
        "labels_per_class": protocol.labels_per_class,
        "seed": cell.seed,
        **source.settings,
    }
