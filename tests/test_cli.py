"""The command line: what goes where, exit codes, and one line for every mistake."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from benchmark import cli, plugins, rows, teacher_origin
from benchmark import experiment as experiment_module
from benchmark.commands import plan as plan_command
from benchmark.commands import run as run_command
from benchmark.commands import teacher as teacher_command
from benchmark.methods.random import Random
from benchmark.network import Network

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Greedy(Random):
    """Stores one number more than it may."""

    def distill(self, problem, *, generator, checkpoint):
        stored = super().distill(problem, generator=generator, checkpoint=checkpoint)
        return {**stored, "more": torch.zeros(1)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Share what is pretrained and distilled among the tests of this file."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def benchmark_(plug, toy_suite, tmp_path, store, capsys, monkeypatch):
    """Run a command in a folder of its own; return exit code, output and lines of errors."""
    plug("suites", "toy", toy_suite)
    plug("methods", "greedy", Greedy)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


@pytest.fixture
def run(benchmark_, store):
    """Run a small part of the toy suite, with changes; what is done before goes without saying."""

    def call(*words):
        small = ["--methods", "random", "--controls", "none", "--students", "convnet"]
        small += ["--budgets", "4", "--probes", "paper", "--store", store, "--jobs", "1"]
        code, out, errors = benchmark_("run", "--suite", "toy", *small, *words)
        return code, out, [line for line in errors if not line.endswith("are done already")]

    return call


def refused(result):
    """Return the one line of a mistake."""
    code, out, (line,) = result
    assert code == 2
    assert out == ""
    assert line.startswith("benchmark: ")
    return line.removeprefix("benchmark: ")


# ---- what goes where


def test_a_run_prints_what_was_asked_for_and_not_what_was_there(run):
    _, first, _ = run("--seeds", "11", "--budgets", "4")
    _, second, _ = run("--seeds", "11", "--budgets", "6")
    assert "N = 4:" in first.splitlines()[0]
    assert "N = 6:" in second.splitlines()[0]


def test_no_path_at_all_is_told(run):
    assert "--store: expected a path, found nothing" in refused(run("--store", ""))


def test_a_run_prints_its_table_and_leaves_a_report_and_rows(run, tmp_path):
    code, out, errors = run("--seeds", "11")
    assert (code, errors) == (0, [])
    folder = tmp_path / "results" / "toy"
    assert out.startswith("### Cross-architecture, N = 4: paper probe, all labels\n")
    assert out.endswith("\nresults/toy/report.md\nresults/toy/report.html\n")
    report = (folder / "report.md").read_text()
    assert report.startswith("# patterns\n\nNothing to be learnt from it.\n")
    made_by = re.search(r"^- made by:\n  - (.*)$", report, re.MULTILINE)[1]
    assert made_by.startswith(
        "python -m benchmark run --suite toy --methods random --controls none"
    )
    assert " --seeds 11 " in made_by
    assert out.partition("\n\nresults/")[0] in report
    assert {row.label for row in rows.read(folder / "rows.jsonl")} == {"random"}
    assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == {
        *("report.md", "report.html", "rows.jsonl", "figures")
    }
    shown = {file.name for file in (folder / "figures").iterdir()}
    kinds = ("accuracy-bytes-paper", "accuracy-seconds-paper")
    tradeoffs = {f"{kind}-{amount}.png" for kind in kinds for amount in ("all", 2)}
    assert shown == tradeoffs  # random images are no distilled ones


def test_a_second_run_gives_the_same_and_a_third_adds_to_it(run, tmp_path):
    run()
    file = tmp_path / "results" / "toy" / "rows.jsonl"
    before = file.read_text()
    assert run() == run()
    assert file.read_text() == before
    code, out, errors = run("--methods", "none", "--controls", "untrained", "--seeds", "7")
    assert (code, errors) == (0, [])
    assert {row.label for row in rows.read(file)} == {"random", "untrained"}
    table = (file.parent / "report.md").read_text().partition("### ")[2].partition("###")[0]
    assert re.findall(r"^\| (random|untrained) ", out, re.M) == ["untrained"]
    assert re.findall(r"^\| (random|untrained) ", table, re.M) == ["untrained", "random"]


def test_what_is_done_already_is_said(run, benchmark_, store):
    run()
    code, _, errors = benchmark_(
        *("run", "--suite", "toy", "--methods", "random", "--controls", "none", "--budgets", "4"),
        *("--students", "convnet", "--probes", "paper", "--seeds", "0,5", "--jobs", "1"),
        *("--store", store),
    )
    assert (code, errors) == (0, ["1 of 2 cells are done already"])


def test_report_is_made_from_rows_alone(run, benchmark_, tmp_path, monkeypatch):
    run()
    file = tmp_path / "results" / "toy" / "report.md"
    before = file.read_text()
    file.unlink()
    monkeypatch.setattr(experiment_module, "load_splits", None)
    code, out, errors = benchmark_("report", "--suite", "toy")
    assert (code, errors) == (0, [])
    assert file.read_text() == before
    assert out.endswith("results/toy/report.md\nresults/toy/report.html\n")


def test_rows_of_two_files_are_merged(benchmark_, new_row, tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    rows.write(one, [new_row(seed=0, value=40.0), new_row(seed=1, value=50.0)])
    again = replace(new_row(seed=1, value=50.0), value=42.0, draws=[42.0])
    rows.write(two, [again, new_row(seed=2, value=44.0)])
    code, out, errors = benchmark_("report", "--rows", one, two, "--output", "merged")
    assert (code, errors) == (0, [])
    assert "42.00 ± 4.97" in out
    merged = rows.read(tmp_path / "merged" / "rows.jsonl")
    assert [row.value for row in merged] == [40.0, 42.0, 44.0]
    assert (tmp_path / "merged" / "report.md").read_text().startswith("# patterns\n")


@pytest.mark.parametrize("suite", [(), ("--suite", "toy")])
def test_rows_without_a_folder_change_no_run(benchmark_, new_row, tmp_path, suite):
    kept = tmp_path / "results" / "toy" / "rows.jsonl"
    rows.write(kept, [new_row(seed=0)])
    named = tmp_path / "elsewhere" / "rows.jsonl"
    merged = tmp_path / "results" / "toy-merged"
    rows.write(merged / "rows.jsonl", [new_row(seed=9)])
    rows.write(named, [new_row(seed=1), new_row(seed=2)])
    before = kept.read_bytes(), named.read_bytes()
    code, out, _ = benchmark_("report", *suite, "--rows", "elsewhere", "--format", "csv,latex")
    assert code == 0
    assert out.endswith("\n\nresults/toy-merged\n")
    assert (kept.read_bytes(), named.read_bytes()) == before
    assert [path.name for path in kept.parent.iterdir()] == ["rows.jsonl"]
    assert [row.seed for row in rows.read(merged / "rows.jsonl")] == [1, 2]
    written = sorted(path.name for path in (merged / "tables").iterdir())
    assert {"cross-architecture-paper-all.csv", "cross-architecture-paper-all.tex"} <= set(written)
    assert not (merged / "report.md").exists()


def test_rows_of_another_teacher_are_said_to_be_left_out_in_one_line(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "a.jsonl", [new_row(context="a", seed=seed) for seed in (0, 1)])
    rows.write(tmp_path / "b.jsonl", [new_row(context="b", teacher="supervised")])
    code, _, errors = benchmark_("report", "--rows", "a.jsonl", "b.jsonl", "--output", "merged")
    line = "2 of 3 rows are not in the report: 2 differing from the last row in teacher"
    assert (code, errors) == (0, [line])
    assert f"\n\n{line}.\n\n" in (tmp_path / "merged" / "report.md").read_text()


@pytest.fixture
def close_run(new_row, tmp_path):
    """Write rows whose table has every character that is not ASCII, and one of a label's own."""
    values = {"random": [40.0, 41.0, 42.5], "λ": [40.5, 40.5, 42.5]}
    rows.write(
        tmp_path / "rows.jsonl",
        [
            new_row(label=label, student=student, seed=seed, value=value)
            for label, line in values.items()
            for student in ("convnet", "vit")[: 2 if label == "random" else 1]
            for seed, value in enumerate(line)
        ],
    )
    return ["report", "--format", "markdown", "--rows", "rows.jsonl", "--output", "out"]


def test_tables_are_printed_on_a_console_of_ascii(close_run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", *close_run],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"\| \? +\| +[\d.]+ \+/- [\d.]+ ~ \| +- \|", done.stdout)


@pytest.mark.parametrize(
    ("encoding", "line"),
    [("cp1252", "[\\d.]+ ± [\\d.]+ ~ \\| +– \\|"), ("utf-8", "λ .* ± [\\d.]+ ≈ \\| +– \\|")],
)
def test_consoles_that_have_a_character_show_it(close_run, tmp_path, monkeypatch, encoding, line):
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert cli.main(close_run) == 0
    sys.stdout.flush()
    assert re.search(line, written.getvalue().decode(encoding))


def test_rows_of_a_suite_that_is_not_known_here_need_a_folder(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "rows.jsonl", [new_row(suite="../outside")])
    line = refused(benchmark_("report", "--rows", "rows.jsonl"))
    assert line == "suite '../outside' is not known here: --output DIR is required"


def test_no_suite_has_a_report_of_the_rows_of_another(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "rows.jsonl", [new_row()])
    line = refused(benchmark_("report", "--suite", "quick", "--rows", "rows.jsonl"))
    assert line == (
        "--suite quick: the last row is of suite 'toy'; expected rows of that suite, or no --suite"
    )
    assert not (tmp_path / "results").exists()


def test_a_report_of_another_folder(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "results" / "toy" / "rows.jsonl", [new_row()])
    code, out, _ = benchmark_(
        *("report", "--suite", "toy", "--output", "new", "--format", "markdown")
    )
    assert (code, out.splitlines()[-1]) == (0, "new/report.md")
    assert [path.name for path in (tmp_path / "results" / "toy").iterdir()] == ["rows.jsonl"]


def test_two_runs_are_compared(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "a" / "rows.jsonl", [new_row(value=40.0)])
    rows.write(tmp_path / "b.jsonl", [new_row(value=42.0, settings={"outer_steps": 200})])
    code, out, errors = benchmark_("compare", "a", "b.jsonl")
    assert (code, errors) == (0, [])
    assert out.startswith("# a (A) and b.jsonl (B)\n\n### What changed\n")
    assert re.search(r"^\| krr-st.outer_steps +\| +100 \| +200 \|$", out, re.M)
    assert re.search(r"\| +40.00 \| +42.00 \| +\+2.00, n = 1 \|$", out, re.M)


def test_rows_of_a_suite_that_is_not_known_here_keep_its_name(benchmark_, new_row, tmp_path):
    rows.write(tmp_path / "rows.jsonl", [new_row(suite="theirs")])
    code, *_ = benchmark_("report", "--rows", "rows.jsonl", "--output", ".")
    assert code == 0
    assert (tmp_path / "report.md").read_text().startswith("# theirs\n")


def test_a_dry_run_prints_the_cells_and_makes_nothing(run, tmp_path, monkeypatch):
    run()

    def forbidden(*arguments, **settings):
        raise AssertionError("made something")

    monkeypatch.setattr(teacher_origin, "pretrain_teacher", forbidden)
    monkeypatch.setattr(experiment_module, "load_teacher", forbidden)
    monkeypatch.setattr(run_command, "execute", forbidden)
    code, out, errors = run("--dry-run", "--methods", "random,krr-st")
    assert (code, errors) == (0, [])
    listed, _, cost = out.partition("\n\n")
    assert listed == "done   random, N = 4, convnet, seed 0\nto do  krr-st, N = 4, convnet, seed 0"
    assert "| distillation" in cost and "krr-st, N = 4" in cost and "random" not in cost
    assert "| teacher" not in cost  # it is there already
    code, out, _ = run("--dry-run", "--probes", "fair")  # the student is there, too
    assert (code, out.splitlines()[0]) == (0, "to do  random, N = 4, convnet, seed 0")
    stages = {line.split()[1] for line in out.splitlines() if line.startswith("| ")}
    assert stages == {"stage", "features", "probes"}
    code, out, _ = run("--dry-run", "--probes", "paper,fair")
    assert "| fair, all labels" in out
    assert "| paper, all labels" not in out  # its row is there
    code, out, _ = run("--dry-run", "--store", tmp_path / "new")
    listed, _, cost = out.partition("\n\n")
    assert (code, listed) == (0, "to do  random, N = 4, convnet, seed 0")
    assert "| teacher" in cost
    assert [folder.name for folder in (tmp_path / "new").iterdir()] == ["images"]


def test_datasets_that_may_be_missing_are_left_out_unless_asked_for(run, plug, toy_suite, caplog):
    more = (*toy_suite.downstream, "cub2011")
    optional = ("cub2011", "tiny-imagenet")
    plug("suites", "toy", replace(toy_suite, downstream=more, where_present=optional))
    code, out, _ = run("--dry-run")
    assert (code, out.splitlines()[0].split()[-4:]) == (0, ["4,", "convnet,", "seed", "0"])
    (said,) = caplog.messages
    assert said.startswith("cub2011: not found below ") and "left out" in said
    assert refused(run("--downstream", "cub2011")).startswith("cub2011: ")


def test_a_teacher_is_kept_in_a_file_and_used_from_there(run, benchmark_, tmp_path, store):
    code, out, errors = benchmark_(
        *("teacher", "--suite", "toy", "--store", store, "--output", "new/t.safetensors")
    )
    assert (code, errors) == (0, [])
    assert out.splitlines()[0] == "new/t.safetensors: supervised, resnet-small, d = 8"
    curve = pd.read_csv("new/t.csv")
    assert list(curve) == ["step", "loss", "held_out"] and curve.step.iloc[0] == 0
    assert np.isfinite(curve).all(axis=None)
    with Image.open("new/t.png") as picture:
        assert picture.format == "PNG" and picture.width > 600
    code, _, errors = run("--teacher", "new/t.safetensors")
    assert (code, errors) == (0, [])
    (row, *_) = rows.read(tmp_path / "results" / "toy" / "rows.jsonl")
    assert row.teacher == "supervised"


def test_a_teachers_curve_has_what_is_logged_now_and_then(tmp_path):
    teacher_command._write_curve(
        tmp_path / "t.safetensors", [{"step": 0.0, "loss": 2.0}, {"step": 1.0, "held_out": 5.0}]
    )
    assert (tmp_path / "t.csv").read_text() == "step,loss,held_out\n0.0,2.0,\n1.0,,5.0\n"
    assert not (tmp_path / "t.png").exists()


@pytest.mark.parametrize("kind", ["methods", "models", "datasets", "teachers", "suites", "kernels"])
def test_every_plug_in_is_listed_with_a_line_on_what_it_is(benchmark_, kind):
    code, out, errors = benchmark_("list", kind)
    assert (code, errors) == (0, [])
    listed = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    shipped = ["cifar100-teacher", "fashion-mnist-teacher"] if kind == "teachers" else []
    assert list(listed) == [*plugins.names(kind), *shipped]
    assert all(len(summary) > 5 for summary in listed.values())


def test_datasets_are_listed_with_their_licences(benchmark_):
    _, out, _ = benchmark_("list", "datasets")
    (digits,) = (line for line in out.splitlines() if line.startswith("digits "))
    assert digits.endswith("8 x 8 pixels, shipped with scikit-learn. Licence: CC BY 4.0.")


def test_a_broken_plug_in_is_listed_as_such(benchmark_, plug):
    plug("teachers", "broken", ImportError("no\nmodule"))
    code, out, _ = benchmark_("list", "teachers")
    assert code == 0
    assert re.search(r"broken +\(.* cannot be loaded: ImportError: no module \(.*line", out)
    assert "supervised" in out


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"limit": None}, "method odd: its limit is None, expected 'numbers', 'bytes', 'none'"),
        ({"limit": "floats"}, "method odd: its limit is 'floats', expected 'numbers', "),
        ({"supervision": "label"}, "method odd: its supervision is 'label', expected 'none', "),
        ({"__annotations__": {"rate": float}}, "method odd: its setting rate has no default"),
        (
            {"__annotations__": {"rate": "Unknown"}, "rate": 1.0},
            "odd: the type of a setting cannot be resolved (name 'Unknown' is not defined)",
        ),
        (
            {"__annotations__": {"rate": float}, "rate": math.inf},
            "odd.rate is inf, expected a finite number, text, true, false, none, or a tuple of",
        ),
        (
            {"__annotations__": {"kinds": frozenset}, "kinds": frozenset({"a"})},
            "odd.kinds is frozenset({'a'}), expected a finite number, ",
        ),
    ],
)
def test_a_method_that_is_not_whole_is_told_before_anything_is_made(run, plug, members, message):
    odd = dataclass(frozen=True, kw_only=True)(type("Odd", (Random,), members))
    plug("methods", "odd", odd)
    assert refused(run("--methods", "odd")).startswith(message)


def test_a_method_without_its_functions_is_told(run, plug):
    members = {"supervision": "none", "limit": "numbers", "distill": None}
    plug("methods", "odd", dataclass(frozen=True)(type("Odd", (), members)))
    assert refused(run("--methods", "odd")) == "method odd: it has no decode"


def test_a_teacher_that_is_not_whole_is_told_before_it_is_pretrained(run, plug):
    members = {"supervision": "none", "model": "convnet", "pretrain": None}
    plug("teachers", "odd", dataclass(frozen=True)(type("Odd", (), members)))
    assert refused(run("--teacher", "odd")) == "teacher odd: it has no standardise and no storage"


def test_a_model_without_a_number_of_features_is_told(run, plug):
    plug("models", "odd", lambda shape: nn.Flatten())
    assert refused(run("--students", "odd")) == "model odd: its backbone has no num_features"


def test_a_method_that_is_no_dataclass_is_told(run, plug):
    plug("methods", "odd", object)
    assert refused(run("--methods", "odd")) == (
        "method odd: expected a dataclass, whose fields are its settings"
    )


def test_a_forced_layout_is_that_of_networks_and_is_recorded(run, tmp_path, monkeypatch):
    seen, use = set(), Network.use_memory_format

    def spied(self, memory_format):
        seen.add(memory_format)
        return use(self, memory_format)

    monkeypatch.setattr(Network, "use_memory_format", spied)
    assert run("--precision", "fp32", "--layout", "contiguous")[0] == 0
    found = rows.read(tmp_path / "results" / "toy" / "rows.jsonl")
    assert {row.provenance["layout"] for row in found} == {"contiguous"}
    assert seen == {torch.contiguous_format}
    assert "\n- layout: contiguous\n" in (tmp_path / "results/toy/report.md").read_text()


@pytest.mark.parametrize("command", [[], ["run"], ["list"], ["report"], ["compare"], ["teacher"]])
def test_help_shows_worked_examples_that_are_understood(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    examples = re.findall(r"^  python -m benchmark (.*)$", text, re.M)
    assert len(examples) >= 3
    for example in examples:
        assert example.startswith(" ".join(command))
        assert cli.new_parser().parse_args(example.split()).command == example.split()[0]


def test_without_a_terminal_there_is_no_bar_and_the_light_commands_import_little():
    script = (
        "import sys; from benchmark.cli import main; code = main(['list', 'methods']); "
        "heavy = [m for m in ('timm', 'torchvision', 'sklearn', 'scipy') "
        "if m in sys.modules]; sys.exit(code or ' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "krr-st" in done.stdout


# ---- exit codes


def test_a_batch_system_that_ends_a_run_interrupts_it(tmp_path):
    words = ("run", "--methods", "random", "--controls", "none", "--jobs", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "benchmark", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    ) as running:
        while running.poll() is None and not (tmp_path / ".benchmark").exists():
            time.sleep(0.1)
        running.terminate()
        _, errors = running.communicate()
    assert running.returncode == 130
    assert errors.decode().endswith("benchmark: interrupted; the same command resumes here\n")


def test_an_interrupt_before_anything_has_begun_is_quiet():
    """Importing torch takes seconds; a process whose interrupts are ignored keeps that."""
    script = """
import signal, sys, types
sys.modules["benchmark.cli"] = types.SimpleNamespace(main=None)
for handler in (signal.default_int_handler, signal.SIG_IGN):
    signal.signal(signal.SIGINT, handler)
    sys.modules.pop("benchmark.__main__", None)
    import benchmark.__main__
    print(signal.getsignal(signal.SIGINT).name)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SIG_DFL", "SIG_IGN"]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert cli.main(["list", "teachers"]) == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("buffered", [True, False])
def test_output_that_nobody_reads_ends_quietly(buffered):
    with subprocess.Popen(
        [sys.executable, *["-u"] * (not buffered), "-m", "benchmark", "list", "methods"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as listing:
        listing.stdout.close()
        errors = listing.stderr.read()
    assert (listing.returncode, errors) == (141, b"")


def test_a_failed_cell_is_named_and_the_exit_code_is_1(run, tmp_path):
    code, out, errors = run("--methods", "greedy,random")
    assert code == 1
    assert errors == [
        "failed: greedy, N = 4, convnet, seed 0: stores 3105 numbers, but 3104 are allowed"
    ]
    assert "| random |" in out
    assert "| greedy" not in (tmp_path / "results" / "toy" / "report.md").read_text()


def test_a_skipped_cell_is_named_and_is_no_failure(run):
    code, _, errors = run("--budgets", "4,100")
    assert code == 0
    (line,) = errors
    assert line.startswith("skipped: random, N = 100, convnet, seed 0: needs 100 images, but")


def test_less_than_one_image_of_a_class_is_a_dash_and_told_why(run, tmp_path):
    code, _, errors = run("--methods", "random,random-labels", "--budgets", "3,2")
    assert code == 0
    (line,) = errors
    reason = (
        "skipped: random-labels, N = 2, convnet, seed 0: random-labels at N=2: less than one image "
        "for each of 3 classes; the smallest budget that holds a class-balanced set is 3"
    )
    assert line == reason
    report = (tmp_path / "results" / "toy" / "report.md").read_text()
    assert re.search(r"\|\s+\| +N = 2 \| +N = 3 \|", report)
    assert re.search(r"\| random-labels +\| +– \| +\d+\.\d\d \|", report)
    code, _, errors = run("--methods", "random-labels", "--budgets", "2")
    assert (code, errors[0]) == (2, reason)


def test_if_nothing_can_be_run_the_exit_code_is_2(run):
    code, out, errors = run("--budgets", "100")
    assert (code, out) == (2, "")
    assert errors[0].startswith("skipped: random, N = 100")
    assert errors[1:] == ["benchmark: nothing could be run, for the reasons above"]


def test_an_interrupt_is_one_line(run, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "execute", interrupted)
    code, out, errors = run()
    assert (code, out) == (130, "")
    assert errors == ["benchmark: interrupted; the same command resumes here"]


def test_an_interrupt_of_what_keeps_nothing_does_not_promise_to_resume(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan_command, "predict", interrupted)
    assert cli.main(["plan", "--suite", "quick", "--device", "h100"]) == 130
    assert capsys.readouterr().err == "benchmark: interrupted\n"


# ---- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--methods randon", "unknown method 'randon': did you mean 'random'? known: .*krr-st"),
        ("--controls ful", "unknown method 'ful': did you mean 'full'? known: "),
        ("--students convnt", "unknown model 'convnt': did you mean 'convnet'.*known: alexnet"),
        ("--downstream digit", "unknown dataset 'digit': did you mean 'digits'? known: cifar10,"),
        ("--downstream no/where", "dataset no/where: expected a folder"),
        (
            "--suite quik",
            "unknown suite 'quik': did you mean 'quick'? known: cifar100, cifar100-small,",
        ),
        ("--probes fare", "unknown probe 'fare': did you mean 'fair'? known: fair, paper"),
        ("--teacher superviced", "unknown teacher 'superviced': did you mean 'supervised'? known"),
        ("--set random.x=1", "unknown setting of random 'x': known: none$"),
        ("--set krr-st.ridgee=1", "unknown setting of krr-st 'ridgee': did you mean 'ridge'?"),
        ("--set krrst.ridge=1", "unknown owner of a setting 'krrst': did you mean 'krr-st'? known"),
        ("--set convnet.widths=a", "convnet.widths=a: expected tuple"),
        ("--set mse.batch_size=0", "mse: batch_size=0: expected 1 or more"),
        ("--set teacher.epochs=many", "supervised.epochs=many: expected int"),
        ("--set teacher-model.width=3", "unknown setting of resnet-small 'width'"),
        ("--set krr-st.ridge=1", "--set krr-st.ridge=1: krr-st is not used here"),
        ("--set ridge=1", "--set ridge=1: expected OWNER.NAME=VALUE"),
        ("--set random.x", "--set random.x: expected OWNER.NAME=VALUE"),
        ("--set random.=1", "--set random.=1: expected OWNER.NAME=VALUE"),
        ("--seeds x", "argument --seeds: x: expected whole numbers from 0, such as 0,1,2"),
        ("--seeds 0,1,0", "argument --seeds: 0,1,0: 0 appears twice"),
        ("--labels-per-class all,all", "argument --labels-per-class: all,all: all appears twice"),
        ("--seeds 0,00", "argument --seeds: 0,00: 0 appears twice"),
        ("--budgets 20,+20", r"argument --budgets: 20,\+20: 20 appears twice"),
        ("--data-root ~nobody-here/x", "argument --data-root: ~nobody-here/x: there is no such us"),
        ("--source ~nobody-here/x", "dataset ~nobody-here/x: there is no such user"),
        ("--teacher ~nobody-here/x.ckpt", "--teacher ~nobody-here/x.ckpt: there is no such user"),
        ("--set teacher.batch_size=0", "supervised: batch_size=0: expected 2 or more"),
        ("--seeds ,", "argument --seeds: ,: expected whole numbers"),
        ("--seeds -1", "argument --seeds: .*expected"),
        ("--budgets -3", "argument --budgets: .*expected"),
        ("--budgets=-3", "argument --budgets: -3: expected whole numbers from 1, such as 100,50"),
        ("--budgets 0", "argument --budgets: 0: expected whole numbers from 1"),
        ("--budgets 1.5", "argument --budgets: 1.5: expected whole numbers from 1"),
        ("--labels-per-class foo", "argument --labels-per-class: foo: expected all or whole numb"),
        ("--labels-per-class 0", "argument --labels-per-class: 0: expected all or whole numbers"),
        ("--labels-per-class 1 --probes fair", "--labels-per-class 1: the probe fair holds one"),
        ("--labels-per-class 30", "30 labels a class: the smallest class of .* has 20 training"),
        ("--methods=", "argument --methods: : expected names, such as a,b, or none"),
        ("--methods random,random", "argument --methods: random,random: random appears twice"),
        ("--methods none", "--methods, --controls: expected at least one of either"),
        ("--students none", "unknown model 'none'"),
        ("--jobs 0", "argument --jobs: 0: expected a whole number from 1"),
        ("--jobs 1,2", "argument --jobs: 1,2: expected a whole number from 1"),
        ("--recipe papr", "unknown recipe 'papr': did you mean 'paper'? known: paper, equal-steps"),
        ("--precision fp8", "unknown precision 'fp8': known: fp32, bf16"),
        ("--layout nchw", "unknown layout 'nchw': known: channels-last, contiguous"),
        ("--device gpu", "--device gpu: .*; expected auto, cpu or cuda"),
        ("--method random", "unknown argument '--method': did you mean '--methods'? known: -h, "),
        (
            "--recipe paper --student-steps 5",
            "--student-steps 5: expected --recipe equal-steps, or none",
        ),
        ("rum", "unknown argument 'rum': known: -h, --help, --suite"),
        ("--methods", "argument --methods: expected one argument"),
        ("--teacher none.safetensors", "--teacher none.safetensors: no such file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(run, words, message):
    assert re.match(message.replace("?", r"\?"), refused(run(*words.split(" "))))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("rum", "unknown command 'rum': did you mean 'run'\\? known: run, plan, report, "),
        ("list", "the following arguments are required: KIND"),
        ("list metods", "argument KIND: unknown kind 'metods': did you mean 'methods'\\? known: m"),
        ("report", "results/quick/rows.jsonl: no such file; `run` makes it; or name other"),
        ("report --suite toyy", "unknown suite 'toyy': did you mean 'toy'\\? known: cifar100, "),
        ("report --suite toy", "results/toy/rows.jsonl: no such file; `run` makes it; or name oth"),
        ("report --format cvs", "argument --format: unknown format 'cvs': did you mean 'csv'\\? "),
        ("compare a.jsonl", "the following arguments are required: B"),
        ("compare a.jsonl b", "a.jsonl: no such file; expected the rows.jsonl of a run, or it"),
        ("report --rows none", "none/rows.jsonl: no such file; `run` makes it; or name other f"),
        ("report --rows none.jsonl --output x", "none.jsonl: no such file"),
        ("teacher", "the following arguments are required: --output"),
        ("teacher --output t.csv", "--output t.csv: expected the name of a .safetensors file"),
        ("teacher --output t.safetensors --set random.x=1", "unknown setting of random 'x'"),
        (
            "teacher --suite quick --output t.safetensors --set teacher.epochs=2",
            "--set teacher.epochs=2: teacher is not used here; in use: none",
        ),
        (
            "teacher --suite toy --output t.safetensors --set mse.lr=1",
            "--set mse.lr=1: mse is not used here",
        ),
    ],
)
def test_a_mistake_in_any_command_is_one_line(benchmark_, words, message):
    assert re.match(message, refused(benchmark_(*words.split())))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a row of this benchmark"),
        ("[1, 2]", "not a row of this benchmark"),
        ("\xff", "not a row of this benchmark"),
        ('{"protocol": 0}', "protocol 0, expected 1; move the file away"),
        ('{"protocol": 1, "label": "x"}', "missing or unknown fields: N, changes, "),
    ],
)
def test_rows_of_another_kind_are_told_before_anything_is_run(
    run, tmp_path, monkeypatch, content, message
):
    file = tmp_path / "results" / "toy" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    monkeypatch.setattr(experiment_module, "load_splits", None)
    assert refused(run()).startswith(f"results/toy/rows.jsonl, line 1: {message}")
    assert file.read_text() == content


def test_bytes_that_are_no_text_are_told_too(run, tmp_path):
    file = tmp_path / "results" / "toy" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe")
    assert refused(run()).startswith("results/toy/rows.jsonl: cannot be read ('utf-8' codec")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", json.dumps({}).encode()])
def test_a_teacher_file_that_is_none_is_one_line(run, tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    line = refused(run("--teacher", "t.safetensors"))
    assert line.startswith("t.safetensors: not a whole safetensors file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "convnet.widths=8,0"), "widths"),
        (("--labels-per-class", "5000"), "5000 labels a class: the smallest class"),
    ],
)
def test_a_dry_run_too_refuses_what_no_student_or_dataset_allows(run, words, message):
    code, _, (line,) = run(*words, "--dry-run")
    assert code == 2
    assert message in line


def test_a_dataset_of_one_class_is_nothing_to_probe_on(run, tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / "one" / split / "only"
        folder.mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (16, 16), (i, i, i)).save(folder / f"{i}.png")
    said = refused(run("--downstream", tmp_path / "one"))
    assert said.endswith("one: a single class, expected 2 or more to tell apart")


def test_a_report_without_rows_is_refused(benchmark_, tmp_path):
    (tmp_path / "rows.jsonl").touch()
    assert refused(benchmark_("report", "--rows", "rows.jsonl")) == "rows.jsonl: no rows"


def test_a_dry_run_too_refuses_images_that_the_teacher_does_not_take(run):
    words = ("--teacher", "fashion-mnist-teacher", "--size", "16")
    message = r"teacher\.safetensors: this teacher takes 3x32x32 images, not 3x16x16"
    assert re.search(message, refused(run(*words)))
    code, _, (line,) = run(*words, "--dry-run")
    assert code == 2
    assert re.search(message, line)


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").touch()
    for flag in ("--reports", "--store"):
        file = tmp_path / "file"
        assert f"{flag}: {file}: a file, expected a folder" in refused(run(flag, file))


def test_images_that_a_disk_has_no_room_for_are_one_line(run):
    line = refused(run("--size", 10**9))
    assert "GiB, but" in line and line.endswith("are free")


@pytest.mark.parametrize("line", ["time --json .", "time --report .", "plan --report ."])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(line, benchmark_):
    assert refused(benchmark_(*line.split())) == ".: a folder, expected the name of a file"


def test_two_kinds_of_timings_need_two_files(benchmark_):
    line = refused(benchmark_("time", "--json", "a", "--report", "a"))
    assert line == "--json and --report a: expected two files"


def test_a_teacher_that_cannot_be_written_is_said_before_it_is_made(benchmark_, tmp_path):
    (tmp_path / "t.safetensors").mkdir()
    line = refused(benchmark_("teacher", "--output", "t.safetensors"))
    assert line == "t.safetensors: a folder, expected the name of a file"


@pytest.mark.parametrize(
    "setting",
    [
        "krr-st.outer_lr=-1",
        "krr-st.ridge=-1",
        "krr-st.outer_steps=-3",
        "krr-st.inner_momentum=1",
        "krr-st.inner_model=foo",
        "ours.augmentations=foo",
        "ours.augmentations=rot90,rot90",
        "ours.augmentations=identity",
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_runs(setting, capsys):
    line = ["run", "--methods", "krr-st,ours", "--dry-run", "--set", setting]
    assert cli.main(line) == 2
    assert capsys.readouterr().err.count("\n") == 1
