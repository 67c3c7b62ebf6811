"""Validate the names, settings and cells of a suite before anything is run."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from benchmark import plugins
from benchmark.experiment import Experiment
from benchmark.grid import (
    TEACHER,
    TEACHER_MODEL,
    Cell,
    RecipeName,
    Suite,
    default_of,
    method_of,
    probe_of,
    protocols,
    teacher_of,
)
from benchmark.network_factory import is_model, model_settings
from benchmark.pretrain import RECIPES
from benchmark.probes.fair import FairProbe
from benchmark.probing import HEAD, PROBES
from benchmark.settings import expect_plain, replace
from benchmark.spec import UsageError, unknown
from benchmark.teacher_file import teacher_file


def check(suite: Suite, cells: Sequence[Cell]) -> None:
    """Refuse unknown names and settings, also those that no cell needs.

    Raises:
        UsageError: for the first one.
    """
    for name in suite.probes:
        probe_of(suite, name)
    if 1 in suite.labels_per_class and FairProbe.name in suite.probes:
        raise UsageError("--labels-per-class 1: the probe fair holds one out, so the minimum is 2")
    if suite.recipe not in get_args(RecipeName):
        raise unknown("recipe", suite.recipe, get_args(RecipeName))
    for student in suite.students:
        model_settings(student, {})
    _check_head(suite, cells)
    for cell in cells:
        if cell.variant.method != TEACHER:
            method = method_of(suite, cell.variant)
            expect_plain(cell.variant.method, method)
            if (inner_model := getattr(method, "inner_model", None)) is not None:
                model_settings(inner_model, {})
    for owner, given in suite.settings.items():
        if owner not in (TEACHER, TEACHER_MODEL):
            _check(owner, given)
    if teacher_file(suite.teacher) is None:
        model_settings(teacher_of(suite).model, suite.settings.get(TEACHER_MODEL, {}))


def refusals(cells: Sequence[Cell], experiment: Experiment) -> dict[Cell, str]:
    """Return the cells that methods refuse before a teacher exists, and why."""
    refused = {}
    for cell in cells:
        if cell.variant.method == TEACHER:
            continue
        method = method_of(experiment.suite, cell.variant)
        if (ask := getattr(method, "check", None)) is None:
            continue
        outline = experiment.outline(N=cell.N, labels=method.supervision == "labels")
        try:
            ask(outline)
        except UsageError as error:
            refused[cell] = " ".join(str(error).split())
    return refused


def owners(suite: Suite, cells: Sequence[Cell]) -> set[str]:
    """Return all owners of settings that affect these cells."""
    return {
        *(cell.variant.method for cell in cells if cell.variant.method != TEACHER),
        *(*suite.students, *suite.probes, *RECIPES),
        *teacher_owners(suite),
    }


def teacher_owners(suite: Suite) -> set[str]:
    """Return all owners of settings that affect the teacher: none, if it is a file."""
    pretrained = suite.teacher in plugins.names("teachers")
    return {suite.teacher, TEACHER, TEACHER_MODEL} if pretrained else set()


def _check_head(suite: Suite, cells: Sequence[Cell]) -> None:
    """Refuse the probe `head` alone for a cell without a classifier, which would give no number."""
    for cell in cells:
        if not any(protocols(suite, cell.variant, name) for name in suite.downstream):
            raise UsageError(
                f"--probes {HEAD}: {cell.variant.label} has no classifier for the classes of "
                f"{', '.join(suite.downstream)}; add the probe fair"
            )


def _check(owner: str, given: Mapping[str, Any]) -> None:
    """Refuse settings that their owner does not have."""
    if (record := default_of(owner)) is not None:
        replace(owner, record, given)
    elif is_model(owner):
        model_settings(owner, given)
    else:
        known = [TEACHER, TEACHER_MODEL, *RECIPES, *PROBES]
        known += [
            name for kind in ("methods", "models", "teachers") for name in plugins.names(kind)
        ]
        raise unknown("owner of a setting", owner, known)
