"""The command line: commands, flags, and their values."""

import argparse
from pathlib import Path
from typing import Any, NoReturn, get_args

from benchmark.flag_values import (
    FORMATS,
    KINDS,
    budgets,
    folder,
    formats,
    gib,
    kind,
    label_counts,
    names,
    names_or_none,
    path,
    positive,
    seeds,
)
from benchmark.grid import RecipeName
from benchmark.network import Layout, Precision
from benchmark.planning.sheets import SHEETS
from benchmark.spec import UsageError, unknown

_STORE = Path(".benchmark")

_EXAMPLES = {
    "run": """
examples:
  python -m benchmark run --methods ours,krr-st
  python -m benchmark run --suite cifar100 --methods random,krr-st,ours --data-root ~/data --dry-run
  python -m benchmark run --methods krr-st --students convnet --set krr-st.outer_steps=1000
""",
    "list": """
examples:
  python -m benchmark list methods
  python -m benchmark list suites
  python -m benchmark list datasets
""",
    "plan": """
examples:
  python -m benchmark plan
  python -m benchmark plan --suite cifar100 --device h100 --devices 4
  python -m benchmark plan --against reports/quick --report reports/plan-quick.md
""",
    "report": """
examples:
  python -m benchmark report
  python -m benchmark report --suite cifar100-small --reports reports
  python -m benchmark report --rows a/rows.jsonl b/rows.jsonl --output merged
  python -m benchmark report --rows a b --store .benchmark elsewhere/.benchmark
  python -m benchmark report --suite quick --format markdown,csv,latex
""",
    "compare": """
examples:
  python -m benchmark compare before/rows.jsonl after/rows.jsonl
  python -m benchmark compare reports/quick results/quick
  python -m benchmark compare reports/quick reports/cifar100-small
""",
    "teacher": """
examples:
  python -m benchmark teacher --teacher barlow-twins --output teacher.safetensors
  python -m benchmark teacher --suite cifar100 --data-root ~/data --output teacher.safetensors
  python -m benchmark teacher --teacher supervised --set teacher.epochs=9 --output t.safetensors
""",
    "time": """
examples:
  python -m benchmark time
  python -m benchmark time --only krr-st-step,ours-step --precision fp32
  python -m benchmark time --json kernels.json --report kernels.md
""",
}


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, and takes no abbreviated flags."""

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**options, allow_abbrev=False, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        """Raise the error as a UsageError."""
        raise UsageError(f"{message}; {self.prog} --help shows examples")

    def parse_known_args(self, *arguments: Any, **options: Any) -> tuple[Any, list[str]]:
        """Refuse unknown arguments, and suggest the nearest known flag."""
        found, strange = super().parse_known_args(*arguments, **options)
        if strange:
            flags = [name for action in self._actions for name in action.option_strings]
            self.error(str(unknown("argument", strange[0].partition("=")[0], flags)))
        return found, strange

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            self.error(str(unknown(action.dest, value, list(action.choices))))


def new_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="python -m benchmark",
        description="One harness for dataset distillation: same data, same teacher, same bytes.",
        epilog="examples:" + "".join(text.partition("examples:")[2] for text in _EXAMPLES.values()),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> Parser:
        return commands.add_parser(name, help=text, description=text, epilog=_EXAMPLES[name])

    run = command("run", "Run a suite and write its report.")
    _add_grid(run)
    _add_environment(run)
    _add_reports(run)
    run.add_argument(
        "--dry-run", action="store_true", help="print the cells and their state; run nothing"
    )
    run.add_argument(
        "--jobs", type=positive, metavar="J", help="cells at once (default: 2 on a CPU, else 1)"
    )
    _add_plan(command("plan", "Estimate what a suite costs, before it is run."))
    report = command("report", "Build a report from rows, without running anything.")
    _add_report(report)
    comparison = command("compare", "Show what changed between two runs, with tests.")
    comparison.add_argument("before", type=path, metavar="A", help="rows, or a folder with rows")
    comparison.add_argument("after", type=path, metavar="B", help="likewise")
    listing = command("list", "List what can be named on the command line.")
    listing.add_argument("kind", type=kind, metavar="KIND", help=", ".join(KINDS))
    teacher = command("teacher", "Pretrain a suite's teacher and save it to a file.")
    teacher.add_argument("--suite", default="quick", metavar="NAME", help="suite (default: quick)")
    teacher.add_argument(
        "--output", type=path, required=True, metavar="FILE", help="safetensors file to write"
    )
    _add_teacher(teacher)
    _add_environment(teacher)
    timing = command("time", "Time hot kernels against plain twins and the machine's floor.")
    _add_timing(timing)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_grid(parser)
    place = parser.add_argument_group("where")
    _add_store(place, "keeps measured precision and layout")
    _add_device(place, f"auto, cpu, cuda, ... (calibrated), or by data sheet: {', '.join(SHEETS)}")
    _add_memory(place)
    place.add_argument(
        "--devices", type=positive, default=1, metavar="K", help="number of devices (default: 1)"
    )
    place.add_argument(
        "--jobs", type=positive, metavar="J", help="cells at once on each, as in `run`"
    )
    parser.add_argument(
        "--against", type=path, metavar="ROWS", help="rows, or a folder with rows, to compare with"
    )
    parser.add_argument(
        "--report", type=path, metavar="FILE", help="write a longer report in Markdown"
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite", metavar="NAME", help="suite of the rows (default: quick; of --rows, their last)"
    )
    parser.add_argument(
        "--rows",
        metavar="FILE",
        nargs="+",
        type=path,
        help="rows to merge, or folders with rows; later ones win, and these files stay unchanged",
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="where to write the report; rows of --rows are added to those already there "
        "(default: REPORTS/<suite>; with --rows, REPORTS/<suite>-merged, overwritten)",
    )
    parser.add_argument(
        "--store",
        nargs="+",
        type=folder,
        default=[_STORE],
        metavar="DIR",
        help=f"where figures find distilled sets, in one or more stores (default: {_STORE})",
    )
    _add_reports(parser)


def _add_timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", type=names, metavar="A,B", help="kernels (default: all)")
    parser.add_argument("--small", action="store_true", help="tiny shapes, for a quick look")
    parser.add_argument(
        "--twins-here",
        action="store_true",
        help="run plain twins in this process, which keeps freed memory (default: in their own)",
    )
    parser.add_argument("--json", type=path, metavar="FILE", help="write all measurements")
    parser.add_argument("--report", type=path, metavar="FILE", help="write a report in Markdown")
    _add_store(parser, "keeps measured precision and layout")
    _add_device(parser)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    grid = parser.add_argument_group("what to run (each replaces the suite's own)")
    grid.add_argument("--suite", default="quick", metavar="NAME", help="grid (default: quick)")
    grid.add_argument("--source", metavar="DATASET", help="dataset to distil, or a folder's path")
    grid.add_argument("--size", type=positive, metavar="PIXELS", help="side of all images")
    grid.add_argument("--methods", type=names_or_none, metavar="A,B", help="systems to compare")
    grid.add_argument(
        "--controls", type=names_or_none, metavar="A,B", help="controls to add, or none"
    )
    grid.add_argument(
        "--no-ablation", action="store_true", help="leave out the ablation variants of methods"
    )
    grid.add_argument("--students", type=names, metavar="A,B", help="models, also those of timm")
    grid.add_argument("--downstream", type=names, metavar="A,B", help="datasets to probe on")
    grid.add_argument("--budgets", type=budgets, metavar="N,N", help="N, the main budget first")
    grid.add_argument("--seeds", type=seeds, metavar="S,S", help="seeds of whole experiments")
    grid.add_argument("--recipe", choices=get_args(RecipeName), help="length of pretraining")
    grid.add_argument(
        "--student-steps",
        type=positive,
        metavar="S",
        help="use the recipe equal-steps with this many steps",
    )
    grid.add_argument("--probes", type=names, metavar="A,B", help="fair, paper, head")
    grid.add_argument(
        "--labels-per-class", type=label_counts, metavar="all,10", help="labels that probes see"
    )
    _add_teacher(grid)


def _add_teacher(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--teacher",
        metavar="KIND|FILE",
        help="barlow-twins, supervised, or a file made by the command `teacher` or by solo-learn",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OWNER.NAME=VALUE",
        help="a setting of a method, model, probe, of `teacher` or `teacher-model`; repeatable",
    )


def _add_environment(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument_group("where")
    place.add_argument(
        "--data-root",
        type=path,
        metavar="DIR",
        help="folder of local copies of datasets (default: STORE/data)",
    )
    place.add_argument("--download", action="store_true", help="download missing datasets")
    _add_store(place, "keeps finished stages and checkpoints")
    _add_device(place)
    _add_memory(place)


def _add_device(
    parser: argparse._ActionsContainer, known: str = "auto, cpu, cuda, cuda:1, ..."
) -> None:
    parser.add_argument("--device", default="auto", help=known)
    for flag, values in (("--precision", Precision), ("--layout", Layout)):
        parser.add_argument(flag, choices=get_args(values), help="of networks (default: measured)")


def _add_memory(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-memory",
        type=gib,
        metavar="GIB",
        help="for each running stage (default: 3/4 of the device's memory, shared equally)",
    )


def _add_store(parser: argparse._ActionsContainer, holds: str) -> None:
    parser.add_argument(
        "--store",
        type=folder,
        default=_STORE,
        metavar="DIR",
        help=f"{holds} (default: {_STORE})",
    )


def _add_reports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reports",
        type=folder,
        default=Path("results"),
        metavar="DIR",
        help="reports go to DIR/<suite>/ (default: results)",
    )
    parser.add_argument(
        "--format",
        type=formats,
        default=FORMATS[:2],
        metavar="A,B",
        help=f"some of {', '.join(FORMATS)} (default: {','.join(FORMATS[:2])})",
    )
