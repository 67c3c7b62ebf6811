"""From arguments to the suite, and to its data, teacher and device."""

import argparse
import dataclasses
import logging
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmark import plugins
from benchmark.check import check, owners
from benchmark.compute import Compute, find_device
from benchmark.convolutions import choose
from benchmark.experiment import Experiment
from benchmark.grid import FLAGS, Cell, Suite, cells, with_settings
from benchmark.images import is_present
from benchmark.memory import default_memory
from benchmark.provenance import remember_code
from benchmark.spec import UsageError
from benchmark.store import Store
from benchmark.tf32 import choose_tf32

_THREADS = torch.get_num_threads()

_OVERRIDES = tuple(name for name in FLAGS if name != "set")  # fields


def suite_of(arguments: argparse.Namespace) -> Suite:
    """Return the requested suite, with the changes that flags make."""
    suite: Suite = plugins.load("suites", arguments.suite)
    given = {
        name: value for name in _OVERRIDES if (value := getattr(arguments, name, None)) is not None
    }
    changes: dict[str, Any] = dict(given)
    if (steps := changes.get("student_steps")) is not None:
        if changes.get("recipe") not in (None, "equal-steps"):
            raise UsageError(f"--student-steps {steps}: expected --recipe equal-steps, or none")
        changes["recipe"] = "equal-steps"
    if getattr(arguments, "no_ablation", False):
        changes["ablation"] = ()
    if "downstream" in changes:  # requested by name
        changes["where_present"] = ()
    settings = with_settings(suite, arguments.set)
    flags = [f"--{name.replace('_', '-')} {_text(value)}" for name, value in given.items()]
    flags += ["--no-ablation"] * ("ablation" in changes)
    flags += [f"--set {shlex.quote(assignment)}" for assignment in arguments.set]
    return dataclasses.replace(suite, **changes, settings=settings, flags=" ".join(flags))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        value = ",".join("all" if part is None else str(part) for part in value) or "none"
    return shlex.quote(str(value))


def grid_of(arguments: argparse.Namespace) -> tuple[Suite, list[Cell]]:
    """Return the requested suite and its cells, with names and settings validated.

    Raises:
        UsageError: a name or setting is invalid, or there are no cells.
    """
    suite = suite_of(arguments)
    wanted = cells(suite)
    check(suite, wanted)
    expect_owners(arguments, owners(suite, wanted))
    if not wanted:
        raise UsageError("--methods, --controls: expected at least one of either")
    return suite, wanted


def expect_owners(arguments: argparse.Namespace, owners: Iterable[str]) -> None:
    """Refuse settings of anything not in use, which would have no effect."""
    taking_part = set(owners)
    for assignment in arguments.set:
        owner, *_ = assignment.split(".")
        if owner not in taking_part:
            others = ", ".join(sorted(taking_part)) or "none"
            raise UsageError(f"--set {assignment}: {owner} is not used here; in use: {others}")


def jobs_of(arguments: argparse.Namespace, device: torch.device) -> int:
    """Return how many cells to run at once: by default two on a CPU, one on anything else."""
    jobs = getattr(arguments, "jobs", 1)
    if jobs is not None:
        return int(jobs)
    return min(2, _THREADS) if device.type == "cpu" else 1


def jobs_at_once(arguments: argparse.Namespace, device: torch.device) -> int:
    """Return how many cells a plan counts as parallel; cells that share a GPU share its speed."""
    return jobs_of(arguments, device) if device.type == "cpu" else 1


def compute_of(suite: Suite, arguments: argparse.Namespace) -> Compute:
    """Return the requested device, and how the networks of a suite run on it."""
    device = find_device(arguments.device)
    choose_tf32()
    threads = None
    if device.type == "cpu":
        threads = max(1, _THREADS // jobs_of(arguments, device))
        torch.set_num_threads(threads)
    precision, layout = choose(
        device, arguments.store, precision=suite.precision, layout=suite.layout
    )
    return Compute(
        device,
        precision,
        layout,
        threads=threads,
        all_threads=threads and _THREADS,
        max_memory=getattr(arguments, "max_memory", None)
        or default_memory(device, jobs=jobs_of(arguments, device)),
    )


def experiment_of(suite: Suite, arguments: argparse.Namespace) -> Experiment:
    """Return the experiment of a suite, on the requested device."""
    remember_code()
    return Experiment(
        suite,
        store=Store(arguments.store),
        compute=compute_of(suite, arguments),
        data_root=_data_root(arguments),
        download=arguments.download,
    )


def without_missing(suite: Suite, arguments: argparse.Namespace) -> Suite:
    """Return a suite without optional downstream datasets that are missing; warn about these."""
    root = _data_root(arguments)
    missing = [
        name
        for name in suite.downstream
        if name in suite.where_present
        and not is_present(name, root=root, download=arguments.download)
    ]
    for name in missing:
        logging.getLogger(__name__).warning(
            f"{name}: not found below {root}: left out, as --downstream does not name it"
        )
    left = tuple(name for name in suite.downstream if name not in missing)
    return dataclasses.replace(suite, downstream=left)


def _data_root(arguments: argparse.Namespace) -> Path:
    return Path(arguments.data_root or arguments.store / "data")
