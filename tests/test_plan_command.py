"""`plan` on the command line: tables, totals, and in plain words what they rest on."""

import json
from dataclasses import asdict, replace

import pytest

from benchmark import cli, teacher_origin
from benchmark import experiment as experiment_module
from benchmark.planning.sheets import SHEETS


@pytest.fixture
def plan(monkeypatch, plug, toy_suite, tmp_path, capsys):
    """Plan a part of the toy suite; no teacher may be made and no image read."""

    def forbidden(*arguments, **settings):
        raise AssertionError("touched")

    plug("suites", "toy", replace(toy_suite, students=("convnet",), controls=(), ablation=()))
    monkeypatch.setattr(teacher_origin, "pretrain_teacher", forbidden)
    for name in ("load_teacher", "load_splits"):
        monkeypatch.setattr(experiment_module, name, forbidden)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = cli.main(["plan", "--suite", "toy", "--methods", "random", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


def test_a_named_device_is_expected_not_measured(plan, tmp_path):
    code, out, errors = plan("--device", "h100", "--devices", "2", "--report", "new.md")
    assert (code, errors) == (0, [])
    for stage in ("teacher", "representations", "distillation", "pretraining", "features"):
        assert f"\n| {stage} " in out
    assert "Total on 2 devices" in out
    (sentence,) = [line for line in out.splitlines() if "NVIDIA H100 SXM" in line]
    assert sentence.startswith("Expected for NVIDIA H100 SXM, not measured: ")
    written = (tmp_path / "new.md").read_text()
    command = "python -m benchmark plan --suite toy --methods random --device h100 --devices 2"
    assert f"Made by `{command}`." in written
    assert "not measured" in written and "### Methods and budgets" in written
    assert not (tmp_path / ".benchmark").exists()


def test_what_graphs_save_is_told_where_steps_are_captured(plan):
    code, out, _ = plan("--device", "h100")
    assert code == 0
    header, _, *lines = (line.strip("| ").split("|") for line in out.splitlines() if "|" in line)
    columns = [name.strip() for name in header]
    each, eager = columns.index("each"), columns.index("each without CUDA graphs")
    found = {(line[0].strip(), line[1].strip()): line for line in lines}
    for (stage, probe), line in found.items():
        captured = stage == "pretraining" or probe.startswith("paper,")
        assert (line[eager].strip() != "–") == captured
        if captured:
            assert seconds(line[eager]) > seconds(line[each])
    assert "CUDA graphs" not in plan("--device", "cpu", "--jobs", "1")[1]


def seconds(cell):
    number, unit = cell.split()
    return float(number) * {"ms": 1e-3, "s": 1, "min": 60}[unit]


def test_this_device_is_calibrated_and_checked(plan, new_row, tmp_path):
    """The plan's own device compares; another machine's rows are refused a comparison."""
    known = {"suite": "toy", "label": "random", "method": "random", "N": 4}
    theirs = new_row(**known, device="another")
    (tmp_path / "rows.jsonl").write_text(json.dumps(asdict(theirs)) + "\n")
    code, out, _ = plan("--device", "cpu", "--jobs", "1", "--against", "rows.jsonl")
    assert code == 0
    assert "they are not compared" in out and "another" in out
    (sentence,) = [line for line in out.splitlines() if line.startswith("Calibrated on ")]
    device = sentence.removeprefix("Calibrated on ").partition(": each")[0]
    ours = new_row(**known, device=device, pretrain_seconds=50.0)
    (tmp_path / "rows.jsonl").write_text(json.dumps(asdict(ours)) + "\n")
    code, out, _ = plan("--device", "cpu", "--jobs", "1", "--against", ".", "--report", "here.md")
    assert code == 0
    assert "expected / measured" in out and "(pretraining, convnet); the expected total" in out
    assert "with the code of commit c0ffee." in out
    assert "### Networks, as timed" in (tmp_path / "here.md").read_text()


def test_a_named_device_is_checked_against_rows_of_one(plan, new_row, tmp_path):
    known = {"suite": "toy", "label": "random", "method": "random", "N": 4}
    row = new_row(**known, device="NVIDIA H100 80GB HBM3", pretrain_seconds=50.0)
    (tmp_path / "rows.jsonl").write_text(json.dumps(asdict(row)) + "\n")
    _, out, _ = plan("--device", "h100", "--against", "rows.jsonl")
    assert "expected / measured" in out and "not compared" not in out
    _, out, _ = plan("--device", "h200", "--against", "rows.jsonl")
    assert "The rows are from NVIDIA H100 80GB HBM3, this plan is for NVIDIA H200 SXM" in out


def test_an_unknown_device_is_one_line(plan):
    code, out, errors = plan("--device", "h1000")
    assert (code, out) == (2, "")
    (error,) = errors
    assert "unknown device 'h1000': did you mean 'h100'?" in error


def test_missing_rows_are_one_line(plan):
    code, _, (error,) = plan("--device", "h100", "--against", "nowhere.jsonl")
    assert code == 2 and "nowhere.jsonl: no such file" in error


def test_no_rows_at_all_are_one_line(plan, tmp_path):
    (tmp_path / "rows.jsonl").touch()
    code, _, (error,) = plan("--device", "h100", "--against", "rows.jsonl")
    assert code == 2 and "--against rows.jsonl: expected rows of a run, found none" in error


def test_what_a_device_cannot_hold_is_told(plan, monkeypatch):
    """Three quarters of 10 kB: not even the images."""
    monkeypatch.setitem(SHEETS, "h100", replace(SHEETS["h100"], memory=1e-5))
    _, out, _ = plan("--device", "h100")
    (told,) = [line for line in out.splitlines() if "that a stage may take" in line]
    assert "These exceed the 7.32 KiB that a stage may take" in told
    assert ": teacher supervised; representations view identity; " in told


@pytest.mark.parametrize("device", ["h100", "cpu"])
def test_a_memory_budget_is_planned_with(plan, device, tmp_path):
    """On any device; the plan says what it was asked for, and what cannot keep to it."""
    _, out, _ = plan("--device", device, "--max-memory", "8")
    assert "that a stage may take" not in out
    _, out, _ = plan("--device", device, "--max-memory", str(2**-20), "--report", "small.md")
    assert "These exceed the 1 KiB that a stage may take" in out
    assert f"--device {device} --max-memory 9.53674e-07`" in (tmp_path / "small.md").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--jobs", "2"), "--jobs 2: for this machine only; others take --devices"),
        (("--teacher", "none.ckpt"), "--teacher none.ckpt: no such file"),
        (("--labels-per-class", "100000"), "100000 labels a class"),
    ],
)
def test_what_cannot_be_run_is_not_planned(plan, words, expected):
    code, out, (error,) = plan("--device", "h100", *words)
    assert (code, out) == (2, "")
    assert expected in error


def test_settings_that_are_lists_are_planned(plan):
    words = ("--students", "resnet10t", "--set", "resnet10t.layers=[1,1,1,1]")
    words += ("--set", "resnet10t.channels=[8,8,8,8]")
    code, out, errors = plan("--device", "h100", *words)
    assert (code, errors) == (0, [])
    assert "\n| pretraining " in out
