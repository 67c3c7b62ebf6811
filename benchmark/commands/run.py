"""Run a suite and write its report."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from benchmark import rows
from benchmark.check import refusals
from benchmark.commands._suite import (
    experiment_of,
    grid_of,
    jobs_at_once,
    jobs_of,
    without_missing,
)
from benchmark.commands.report import write_report
from benchmark.compute import find_device
from benchmark.execute import execute, import_ahead
from benchmark.experiment import Experiment
from benchmark.files import expect_writable
from benchmark.grid import Cell
from benchmark.planning import report
from benchmark.planning.calibration import ThisDevice
from benchmark.planning.planner import predict
from benchmark.planning.report import Plan
from benchmark.planning.stored import stored_tasks
from benchmark.reporting.stored_sets import StoredSets
from benchmark.spec import UsageError
from benchmark.stages.probing import is_done

_NOTHING = "nothing could be run, for the reasons above"


def main(arguments: argparse.Namespace) -> int:
    """Run every cell that is not done yet; return 1 if any cell failed."""
    suite, wanted = grid_of(arguments)
    folder = arguments.reports / arguments.suite
    file = folder / "rows.jsonl"
    expect_writable(file)
    if file.exists():
        rows.read(file)  # reports invalid rows before anything is run
    jobs = jobs_of(arguments, find_device(arguments.device))
    if jobs > 1 and not arguments.dry_run:
        import_ahead()
    experiment = experiment_of(without_missing(suite, arguments), arguments)
    refused = refusals(wanted, experiment)
    if arguments.dry_run:
        experiment.check()
        left = _print_plan(wanted, refused, experiment)
        _print_cost(left, experiment, jobs=jobs_at_once(arguments, experiment.compute.device))
        return 0
    _print_reasons("skipped", refused)
    wanted = [cell for cell in wanted if cell not in refused]
    if not wanted:
        raise UsageError(_NOTHING)
    experiment.prepare()
    outcome = execute(wanted, experiment, jobs=jobs, done=partial(rows.append, file))
    _print_reasons("skipped", outcome.skipped)
    _print_reasons("failed", outcome.failed)
    if not outcome.rows and not outcome.failed:
        raise UsageError(_NOTHING)
    found = rows.update(file, outcome.rows)
    sets = StoredSets(arguments.store)
    write_report(folder, found, suite, formats=arguments.format, sets=sets, shown=outcome.rows)
    return 1 if outcome.failed else 0


def _print_plan(
    wanted: Sequence[Cell], refused: Mapping[Cell, str], experiment: Experiment
) -> list[Cell]:
    """Print the state of every cell; return those to be run."""
    left = []
    for cell in wanted:
        if cell in refused:
            sys.stdout.write(f"refused: {cell}: {refused[cell]}\n")
        elif is_done(cell, experiment):
            sys.stdout.write(f"done   {cell}\n")
        else:
            sys.stdout.write(f"to do  {cell}\n")
            left.append(cell)
    return left


def _print_cost(left: Sequence[Cell], experiment: Experiment, *, jobs: int) -> None:
    """Print the expected cost of unfinished cells, without stages that are in the store."""
    if not left:
        return
    device = ThisDevice.of(experiment.suite, experiment.compute)
    prediction = predict(experiment.suite, left, device).without(stored_tasks(left, experiment))
    plan = Plan(prediction=prediction, device=device, jobs=jobs)
    sys.stdout.write(f"\n{report.text(plan)}")


def _print_reasons(verb: str, reasons: Mapping[Cell, str]) -> None:
    for cell, reason in reasons.items():
        sys.stderr.write(f"{verb}: {cell}: {reason}\n")
