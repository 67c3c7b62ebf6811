"""The command line: arguments to a plan, and exit codes. No science here."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, get_args

import torch

from benchmark import plugins, report, rows
from benchmark.check import check
from benchmark.compute import Compute, choose_precision, find_device
from benchmark.execute import execute
from benchmark.network import Precision
from benchmark.plan import RecipeName, Suite, cells, with_settings
from benchmark.source import DataOptions, Source
from benchmark.spec import UsageError
from benchmark.stages import is_done
from benchmark.store import Store
from benchmark.teacher import save_teacher

_KINDS = ("methods", "models", "datasets", "teachers", "suites")

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
    "report": """
examples:
  python -m benchmark report
  python -m benchmark report --suite cifar100
  python -m benchmark report --rows a/rows.jsonl b/rows.jsonl --output merged
""",
    "teacher": """
examples:
  python -m benchmark teacher --output teacher.safetensors
  python -m benchmark teacher --suite cifar100 --data-root ~/data --output teacher.safetensors
  python -m benchmark teacher --teacher supervised --set teacher.epochs=9 --output t.safetensors
""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 if all went well, 1 if some cell failed, 2 for a user's mistake."""
    arguments = _parser().parse_args(argv)
    try:
        return int(_COMMANDS[arguments.command](arguments))
    except UsageError as error:
        _print(f"benchmark: {error}", stream=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _print("benchmark: interrupted; the same line goes on from here", stream=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    suite = _suite(arguments)
    wanted = cells(suite)
    check(suite, wanted)
    source = _source(suite, arguments)
    if arguments.dry_run:
        for cell in wanted:
            _print(f"{'done ' if is_done(cell, source) else 'to do'}  {cell}")
        return 0
    source.prepare()
    folder = arguments.reports / arguments.suite
    file = folder / "rows.jsonl"
    before = rows.read(file) if file.exists() else []

    def keep(new: Sequence[rows.Row]) -> None:
        rows.write(file, rows.merge(before, new))

    outcome = execute(wanted, source, jobs=_jobs(arguments, source), done=keep)
    for cell, reason in {**outcome.skipped, **outcome.failed}.items():
        verb = "failed" if cell in outcome.failed else "skipped"
        _print(f"{verb}: {cell}: {reason}", stream=sys.stderr)
    if not outcome.rows and outcome.skipped and not outcome.failed:
        raise UsageError("nothing could be run, for the reasons above")
    _write_report(folder, rows.merge(before, outcome.rows), suite)
    return 1 if outcome.failed else 0


def _report(arguments: argparse.Namespace) -> int:
    files = arguments.rows or [arguments.reports / arguments.suite / "rows.jsonl"]
    found: list[rows.Row] = []
    for file in files:
        if not file.exists():
            raise UsageError(f"{file}: no such file; `run` makes it, or name others with --rows")
        found = rows.merge(found, rows.read(file))
    folder = arguments.output or arguments.reports / arguments.suite
    _write_report(folder, found, plugins.load("suites", arguments.suite))
    return 0


def _write_report(folder: Path, found: Sequence[rows.Row], suite: Suite) -> None:
    file = folder / "report.md"
    report.write(file, found, title=suite.title, notes=suite.notes)
    _print(report.headline(found))
    _print(f"\n{file}")


def _list(arguments: argparse.Namespace) -> int:
    for name in plugins.names(arguments.kind):
        _print(f"{name:<16}  {_summary(plugins.load(arguments.kind, name))}")
    return 0


def _summary(plugin: Any) -> str:
    """Return one line on a plug-in: a title it has, else the first line of its module."""
    if isinstance(plugin, Suite):
        return plugin.title
    module = sys.modules[plugin.__module__]
    return (module.__doc__ or "").strip().splitlines()[0]


def _teacher(arguments: argparse.Namespace) -> int:
    source = _source(_suite(arguments), arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_teacher(arguments.output, source.teacher)
    header = source.teacher.header
    _print(f"{arguments.output}: {header.kind}, {header.model}, d = {header.d}")
    _print(f"held-out accuracy: {header.held_out}")
    return 0


_COMMANDS = {"run": _run, "report": _report, "list": _list, "teacher": _teacher}


def _suite(arguments: argparse.Namespace) -> Suite:
    """Return the suite that was asked for, with what flags change of it."""
    suite: Suite = plugins.load("suites", arguments.suite)
    changes = {
        name: value for name in _OVERRIDES if (value := getattr(arguments, name, None)) is not None
    }
    if (recipe := changes.get("recipe")) is not None and recipe not in suite.lengths:
        raise plugins.unknown("recipe", recipe, list(suite.lengths))
    settings = with_settings(suite, arguments.set)
    return dataclasses.replace(suite, **changes, settings=settings)


_OVERRIDES = (
    *("teacher", "methods", "controls", "students", "downstream", "budgets", "seeds"),
    *("recipe", "probes", "labels_per_class", "precision"),
)


def _source(suite: Suite, arguments: argparse.Namespace) -> Source:
    device = find_device(arguments.device)
    precision = suite.precision or choose_precision(device, arguments.store)
    return Source(
        suite,
        store=Store(arguments.store),
        compute=Compute(device, precision),
        data=DataOptions(
            root=arguments.data_root,
            download=arguments.download,
            full_hash=arguments.full_hash,
        ),
    )


def _jobs(arguments: argparse.Namespace, source: Source) -> int:
    """Return how many cells to run at once: two on a CPU, one on anything else, unless told."""
    if arguments.jobs is not None:
        return int(arguments.jobs)
    on_cpu = source.compute.device.type == "cpu"
    return min(2, torch.get_num_threads()) if on_cpu else 1


def _print(text: str, *, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark",
        description="One harness for dataset distillation: same data, same teacher, same bytes.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=_EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    run_command = command("run", "Run a suite and write its report.")
    _add_grid(run_command)
    _add_environment(run_command)
    run_command.add_argument(
        "--dry-run", action="store_true", help="print the cells and which are done, run nothing"
    )
    report_command = command("report", "Build a report from rows, without running anything.")
    report_command.add_argument("--suite", default="quick", help="whose rows (default: quick)")
    report_command.add_argument(
        "--rows", nargs="+", type=Path, metavar="FILE", help="rows to merge instead"
    )
    report_command.add_argument(
        "--output", type=Path, metavar="DIR", help="where to (default: beside the suite's rows)"
    )
    _add_reports(report_command)
    list_command = command("list", "List what can be named on the command line.")
    list_command.add_argument("kind", choices=_KINDS)
    teacher_command = command("teacher", "Pretrain a suite's teacher and keep it in a file.")
    teacher_command.add_argument("--suite", default="quick", help="whose (default: quick)")
    teacher_command.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="safetensors file to write"
    )
    _add_teacher(teacher_command)
    _add_environment(teacher_command)
    return parser


def _add_grid(parser: argparse.ArgumentParser) -> None:
    grid = parser.add_argument_group("what to run (each replaces the suite's own)")
    grid.add_argument("--suite", default="quick", help="named grid (default: quick)")
    grid.add_argument("--methods", type=_names, metavar="A,B", help="systems to compare")
    grid.add_argument(
        "--controls", type=_names, metavar="A,B", help="controls beside them; none for none"
    )
    grid.add_argument("--students", type=_names, metavar="A,B", help="models, or any of timm's")
    grid.add_argument("--downstream", type=_names, metavar="A,B", help="datasets to probe on")
    grid.add_argument("--budgets", type=_integers, metavar="N,N", help="the main one first")
    grid.add_argument("--seeds", type=_integers, metavar="S,S", help="of whole experiments")
    grid.add_argument("--recipe", choices=get_args(RecipeName), help="length of pretraining")
    grid.add_argument("--probes", type=_names, metavar="A,B", help="fair, paper")
    grid.add_argument(
        "--labels-per-class",
        type=_label_counts,
        metavar="all,10",
        help="how many labels probes see",
    )
    _add_teacher(grid)


def _add_teacher(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--teacher", metavar="KIND|FILE", help="barlow-twins, supervised, or a teacher file"
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
    place.add_argument("--data-root", type=Path, metavar="DIR", help="local copies of datasets")
    place.add_argument("--download", action="store_true", help="fetch data that is missing")
    place.add_argument(
        "--full-hash", action="store_true", help="check cached images against the files' content"
    )
    place.add_argument(
        "--store",
        type=Path,
        default=Path(".benchmark"),
        metavar="DIR",
        help="finished stages and checkpoints (default: .benchmark)",
    )
    place.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    place.add_argument(
        "--precision", choices=get_args(Precision), help="of networks (default: measured)"
    )
    place.add_argument(
        "--jobs", type=int, metavar="J", help="cells at once (default: 2 on a CPU, 1 on a GPU)"
    )
    _add_reports(place)


def _add_reports(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="reports go to DIR/<suite>/ (default: reports)",
    )


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(part.strip() for part in text.split(",") if part.strip())


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _label_counts(text: str) -> tuple[int | None, ...]:
    return tuple(None if part.strip() == "all" else int(part) for part in text.split(","))
