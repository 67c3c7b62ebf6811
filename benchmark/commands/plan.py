"""Estimate what a suite costs before it is run: seconds, memory and disk of every stage."""

import argparse
import shlex
import sys

from benchmark.commands._rows import rows_at
from benchmark.commands._suite import compute_of, grid_of, jobs_at_once
from benchmark.files import expect_writable, write_text
from benchmark.grid import Suite
from benchmark.memory import GIB
from benchmark.planning import report
from benchmark.planning.calibration import ThisDevice
from benchmark.planning.devices import Device, NamedDevice
from benchmark.planning.planner import predict
from benchmark.planning.report import Plan
from benchmark.provenance import provenance, short_commit
from benchmark.spec import UsageError

_HERE = ("auto", "cpu", "cuda")  # device types that mean this machine


def main(arguments: argparse.Namespace) -> int:
    """Print the expected cost of every stage of a suite; write it to a file if requested."""
    if arguments.report:
        expect_writable(arguments.report)
    suite, wanted = grid_of(arguments)
    measured = rows_at(arguments.against, "expected rows of a run") if arguments.against else []
    if arguments.against and not measured:
        raise UsageError(f"--against {arguments.against}: expected rows of a run, found none")
    device, jobs = _device(suite, arguments)
    prediction = predict(suite, wanted, device)
    if not prediction.chains:
        raise UsageError(next(iter(prediction.refused.values())))
    plan = Plan(
        prediction=prediction,
        device=device,
        devices=arguments.devices,
        jobs=jobs,
        measured=measured,
    )
    if arguments.report:
        made = provenance("cpu")
        written = report.document(
            plan,
            title=f"{suite.name} on {device.name}",
            command=_command(suite, arguments),
            provenance=(
                f"Commit {short_commit(made['commit'])}, torch {made['torch']}, "
                f"{made['finished_at']}."
            ),
        )
        write_text(arguments.report, written)
    sys.stdout.write(report.text(plan))
    return 0


def _device(suite: Suite, arguments: argparse.Namespace) -> tuple[Device, int]:
    """Return the requested device, and how many cells share it (on a CPU only)."""
    if arguments.device.partition(":")[0] in _HERE:
        compute = compute_of(suite, arguments)
        return ThisDevice.of(suite, compute), jobs_at_once(arguments, compute.device)
    device = NamedDevice(arguments.device, suite, max_memory=arguments.max_memory)
    if arguments.jobs:
        raise UsageError(f"--jobs {arguments.jobs}: for this machine only; others take --devices")
    return device, 1


def _command(suite: Suite, arguments: argparse.Namespace) -> str:
    """Return the command that makes the same plan."""
    given = [f"--device {arguments.device}"]
    given += [f"--devices {arguments.devices}"] if arguments.devices > 1 else []
    given += [f"--jobs {arguments.jobs}"] if arguments.jobs else []
    given += [f"--max-memory {arguments.max_memory / GIB:g}"] if arguments.max_memory else []
    given += [f"--against {shlex.quote(str(arguments.against))}"] if arguments.against else []
    return " ".join(
        filter(None, ["python -m benchmark plan --suite", suite.name, suite.flags, *given])
    )
