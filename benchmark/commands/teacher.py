"""Pretrain a suite's teacher and keep it in a file."""

import argparse
import sys

from benchmark.check import check, teacher_owners
from benchmark.commands._suite import expect_owners, source_of, suite_of
from benchmark.teacher import save_teacher


def main(arguments: argparse.Namespace) -> int:
    """Write the teacher to a file of its own, and print how good it is."""
    suite = suite_of(arguments)
    check(suite, [])
    expect_owners(arguments, teacher_owners(suite))
    source = source_of(suite, arguments)
    save_teacher(arguments.output, source.teacher)
    header = source.teacher.header
    sys.stdout.write(f"{arguments.output}: {header.kind}, {header.model}, d = {header.d}\n")
    sys.stdout.write(f"held-out accuracy: {header.held_out}\n")
    return 0
