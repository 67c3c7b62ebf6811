"""Pretrain a suite's teacher and save it to a file."""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.check import check, teacher_owners
from benchmark.commands._suite import expect_owners, experiment_of, suite_of
from benchmark.files import atomic, expect_writable
from benchmark.reporting.teacher_curve import teacher_curve
from benchmark.spec import UsageError
from benchmark.teacher import save_teacher


def main(arguments: argparse.Namespace) -> int:
    """Write the teacher to a file, its curve beside it, and print its held-out accuracy."""
    if arguments.output.suffix != ".safetensors":
        raise UsageError(f"--output {arguments.output}: expected the name of a .safetensors file")
    expect_writable(arguments.output)
    suite = suite_of(arguments)
    check(suite, [])
    expect_owners(arguments, teacher_owners(suite))
    experiment = experiment_of(suite, arguments)
    save_teacher(arguments.output, experiment.teacher)
    if experiment.teacher_origin.history:
        _write_curve(arguments.output, experiment.teacher_origin.history)
    header = experiment.teacher.header
    sys.stdout.write(f"{arguments.output}: {header.kind}, {header.model}, d = {header.d}\n")
    sys.stdout.write(f"held-out accuracy: {header.held_out}\n")
    return 0


def _write_curve(teacher: Path, points: Sequence[Mapping[str, float]]) -> None:
    """Write the logged values as a table and, if `fit` logged them, as a figure."""
    names = list(dict.fromkeys(name for point in points for name in point))
    with (
        atomic(teacher.with_suffix(".csv")) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as opened,
    ):
        writer = csv.DictWriter(opened, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
    if not all({"loss", "held_out"} <= point.keys() for point in points):
        return
    with atomic(teacher.with_suffix(".png")) as temporary:
        temporary.write_bytes(teacher_curve(points).render().png)
