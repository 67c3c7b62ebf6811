"""Show what changed between two runs."""

import argparse
import sys

from benchmark.commands._rows import rows_at
from benchmark.reporting.comparison import compare


def main(arguments: argparse.Namespace) -> int:
    """Print what changed in settings and in numbers from one run to another."""
    before, after = (
        rows_at(path, "expected the rows.jsonl of a run, or its folder")
        for path in (arguments.before, arguments.after)
    )
    tables = [table.markdown() for table in compare(before, after)]
    heading = f"# {arguments.before} (A) and {arguments.after} (B)"
    sys.stdout.write("\n\n".join([heading, *tables]) + "\n")
    return 0
