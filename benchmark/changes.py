"""Which of a number's settings differ from the published defaults."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmark.experiment import Experiment
from benchmark.grid import TEACHER, TEACHER_MODEL, Cell, default_of, method_of, probe_of, recipe_of
from benchmark.network_factory import model_defaults
from benchmark.settings import neutral
from benchmark.spec import Objective


def changes(
    cell: Cell, experiment: Experiment, *, probe: str, objective: Objective | None
) -> dict[str, dict[str, Any]]:
    """Return the changed settings behind a number, by owner.

    Args:
        cell: what is measured.
        experiment: what all cells share.
        probe: name of the probe.
        objective: of the student's pretraining; None if there was none.
    """
    suite, teacher = experiment.suite, experiment.teacher.header
    found = {
        probe: _differences(asdict(probe_of(suite, probe)), probe),
        TEACHER: _differences(teacher.settings, teacher.kind),
        TEACHER_MODEL: _differences(teacher.model_settings, teacher.model),
    }
    if cell.variant.method != TEACHER:
        method = asdict(method_of(suite, cell.variant))
        found[cell.variant.method] = _differences(method, cell.variant.method)
        found[cell.student] = _differences(experiment.student_settings(cell.student), cell.student)
    if objective is not None:
        found[objective] = _differences(asdict(recipe_of(suite, objective)), objective)
    return {owner: fields for owner, fields in found.items() if fields}


def _differences(settings: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return the settings that differ from the owner's defaults (all, if the owner is unknown)."""
    default = default_of(owner)
    defaults = model_defaults(owner) if default is None else asdict(default)
    ignored = set() if default is None else neutral(default)
    return {
        name: value
        for name, value in settings.items()
        if name not in ignored
        and (name not in defaults or _as_json(value) != _as_json(defaults[name]))
    }


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a file: tuples are lists."""
    return json.loads(json.dumps(value))
