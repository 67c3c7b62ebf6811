"""Every stage of a cell: what it makes, in which order, once, and the same after any death."""

import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from benchmark import artifacts, network_factory, plugins, teacher_origin
from benchmark import execute as execute_module
from benchmark import experiment as experiment_module
from benchmark import run as run_module
from benchmark.compute import Compute
from benchmark.execute import execute
from benchmark.experiment import Experiment
from benchmark.grid import Variant, cells
from benchmark.images import Splits, final_probe
from benchmark.loop import CheckpointedLoop
from benchmark.methods.random import Random
from benchmark.methods.random_bytes import RandomBytes
from benchmark.methods.random_labels import RandomLabels
from benchmark.models.convnet import _norm as convnet_norm
from benchmark.reporting import report
from benchmark.settings import NEUTRAL
from benchmark.spec import OwnEvaluation, Problem, UsageError
from benchmark.stages import keys, pretraining, probing
from benchmark.stages.distillation import distill
from benchmark.stages.keys import distilled_key
from benchmark.stages.pretraining import pretrained_student
from benchmark.stages.probing import is_done, stored_rows
from benchmark.store import Store
from benchmark.whitening import Whitening

CPU = Compute(torch.device("cpu"), "fp32")
PAIR = 3 * 16 * 16 + 8  # numbers in one image and one representation


def new_experiment(suite, root):
    return Experiment(suite, store=Store(root), compute=CPU)


def run(experiment, *, done=lambda rows: None):
    experiment.prepare()
    return execute(cells(experiment.suite), experiment, jobs=1, done=done)


def small(suite, **changes):
    """Keep one method and one student of a suite."""
    fewer = {
        "methods": ("krr-st",),
        "controls": (),
        "ablation": (),
        "students": ("convnet",),
        "budgets": (4,),
        "probes": ("paper",),
    }
    return replace(suite, **{**fewer, **changes})


def numbers(rows):
    return [
        (
            *(row.label, row.N, row.student, row.downstream, row.seed),
            *(row.probe, row.labels_per_class, row.value, row.draws, row.strength),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def whole(toy_suite, tmp_path_factory):
    """Run the whole toy suite once."""
    root = tmp_path_factory.mktemp("whole")
    progress = []
    outcome = run(new_experiment(toy_suite, root), done=lambda rows: progress.append(len(rows)))
    return root, outcome, progress


# ---- a whole suite


def test_every_cell_gives_all_its_numbers(toy_suite, whole):
    _, outcome, progress = whole
    assert outcome.failed == outcome.skipped == {}
    protocols = {("fair", None), ("paper", None), ("fair", 2), ("paper", 2)}
    found = Counter((row.label, row.N, row.student) for row in outcome.rows)
    students = ("convnet", "resnet-small")
    expected = {
        **{(label, None, student): 4 for label in ("untrained", "full") for student in students},
        **{
            (label, 4, student): 4
            for label in ("pca", "random", "krr-st", "ours")
            for student in students
        },
        **{(label, 6, "convnet"): 4 for label in ("pca", "random", "krr-st", "ours")},
        ("ours: bases only", 4, "convnet"): 4,
        ("teacher", None, "teacher"): 4,
    }
    assert found == expected
    assert progress == [4] * len(expected)
    for row in outcome.rows:
        assert (row.probe, row.labels_per_class) in protocols
        assert len(row.draws) == (1 if row.labels_per_class is None else 10)
        assert row.value == pytest.approx(sum(row.draws) / len(row.draws))
        hits = [draw * 24 / 100 for draw in row.draws]  # of the 24 test images
        assert hits == pytest.approx([round(hit) for hit in hits])
        assert row.teacher == "supervised"
        assert row.source == row.downstream == toy_suite.source
        assert row.probe_seconds > 0 and row.features_seconds > 0


def test_probes_read_what_features_hold(whole):
    """Chance is a third; the patterns are easy, also for an untrained ConvNet."""
    _, outcome, _ = whole
    best = {
        row.label: row.value
        for row in outcome.rows
        if (row.student, row.probe, row.labels_per_class) == ("convnet", "fair", None)
    }
    assert min(best.values()) > 60


def test_files_hold_no_more_than_the_budget_allows(whole):
    root, outcome, _ = whole
    stored = set()
    for file in root.glob("distilled/*/distilled.safetensors"):
        tensors = load_file(file).values()
        stored.add((sum(t.numel() for t in tensors), sum(t.nbytes for t in tensors)))
    for row in outcome.rows:
        assert row.N is None or row.num_numbers <= row.N * PAIR
        assert row.num_numbers is None or (row.num_numbers, row.num_bytes) in stored
    (random,) = {row.num_numbers for row in outcome.rows if (row.label, row.N) == ("random", 6)}
    assert random == 6 * PAIR
    nothing = {row.num_numbers for row in outcome.rows if row.label in ("untrained", "teacher")}
    assert nothing == {None}


def test_rows_say_what_the_student_saw(whole):
    _, outcome, _ = whole
    seen = {(row.label, row.N): row for row in outcome.rows}
    assert seen["untrained", None].student_steps == seen["teacher", None].student_steps == 0
    assert seen["random", 6].student_steps == seen["full", None].student_steps == 4
    assert (seen["random", 6].num_images, seen["random", 6].num_views) == (6, 1)
    assert seen["full", None].num_images == 60
    assert seen["ours", 4].num_views == 4
    assert seen["ours: bases only", 4].num_views == 1
    assert seen["untrained", None].num_images is None


def test_rows_say_what_is_not_as_published(whole):
    _, outcome, _ = whole
    seen = {(row.label, row.student, row.probe): row.changes for row in outcome.rows}
    common = {
        "teacher": {"model": "resnet-small", "epochs": 1, "batch_size": 16, "standardise": True},
        "teacher-model": {"widths": [4, 8]},
    }
    assert seen["teacher", "teacher", "fair"] == common
    assert seen["untrained", "convnet", "paper"] == {
        **common,
        "convnet": {"widths": [4, 4]},
        "paper": {"steps": 10, "batch": 16},
    }
    assert seen["random", "convnet", "fair"] == {
        **common,
        "convnet": {"widths": [4, 4]},
        "mse": {"batch_size": 8},
    }
    changed = seen["ours: bases only", "convnet", "fair"]["ours"]
    assert changed["augmentations"] == []
    assert changed["approximation"] is False
    assert changed["inner_widths"] == [4, 4]
    assert "ridge" not in changed


def test_a_second_run_makes_nothing_and_reads_the_same_rows(toy_suite, whole, monkeypatch):
    root, outcome, _ = whole

    def forbidden(*arguments, **settings):
        raise AssertionError("made again")

    monkeypatch.setattr(run_module, "distill", forbidden)
    monkeypatch.setattr(run_module, "pretrained_student", forbidden)
    monkeypatch.setattr(pretraining, "pretrain", forbidden)
    monkeypatch.setattr(probing, "extract", forbidden)
    monkeypatch.setattr(probing, "probe", forbidden)
    monkeypatch.setattr(teacher_origin, "pretrain_teacher", forbidden)
    monkeypatch.setattr(experiment_module, "load_teacher", forbidden)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    again = run(new_experiment(toy_suite, root), done=forbidden)
    assert again.rows == outcome.rows
    after = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    assert {file for file in after if file.name != "lock"} == {
        file for file in before if file.name != "lock"
    }
    assert all(before[file] == after[file] for file in before if file.name != "lock")
    assert not list(root.rglob("checkpoints"))


# ---- seeds and deaths


def test_a_seed_decides_every_bit_and_another_gives_other_numbers(toy_suite, tmp_path):
    suite = small(toy_suite, seeds=(0, 1))
    one, two = (run(new_experiment(suite, tmp_path / name)).rows for name in ("one", "two"))
    assert numbers(one) == numbers(two)
    assert [row.key for row in one] == [row.key for row in two]
    seeds = [[row.draws for row in one if row.seed == seed] for seed in (0, 1)]
    assert seeds[0] != seeds[1]
    students = [
        {file.parent.name: load_file(file) for file in (tmp_path / name).rglob("student.*")}
        for name in ("one", "two")
    ]
    assert students[0].keys() == students[1].keys() and len(students[0]) == 2
    for key, weights in students[0].items():
        assert all(torch.equal(weights[name], students[1][key][name]) for name in weights)


@pytest.fixture
def mortal(monkeypatch, saved_at_every_step):
    """Let loops save after every step, and be interrupted before a step of one of them."""
    steps, taken, death = CheckpointedLoop.steps, [], []

    def dying(self, name, total, **state):
        self.save_every_seconds = 0.0
        for step in steps(self, name, total, **state):
            if death == [(self.description, name, step)]:
                raise KeyboardInterrupt
            taken.append((self.description, name, step))
            yield step

    monkeypatch.setattr(CheckpointedLoop, "steps", dying)
    return taken, death


def test_interrupted_again_and_again_a_run_gives_the_same_rows(toy_suite, tmp_path, mortal):
    suite = small(toy_suite, methods=("ours",), probes=("fair", "paper"), labels_per_class=(None,))
    taken, death = mortal
    expected = run(new_experiment(suite, tmp_path / "whole")).rows
    all_steps = list(taken)
    taken.clear()
    probed = f"ours, N = 4, convnet, seed 0, probed on {suite.source}"
    deaths = [
        *(("supervised teacher", "pretraining", step) for step in (0, 2)),
        *(("ours, N = 4, convnet, seed 0", "pool warm-up", step) for step in (0, 1)),
        *(("ours, N = 4, convnet, seed 0", "outer steps", step) for step in (1, 2)),
        *(("ours, N = 4, convnet, seed 0", "approximation networks", step) for step in (0, 3)),
        *(("ours, N = 4, convnet, seed 0", "pretraining", step) for step in (1, 3)),
        *((probed, name, 0) for name in ("features", "test features")),
        *((probed, "strengths for 1 draws at once", step) for step in (0, 1)),
        *((probed, "steps of draws 0 to 0", step) for step in (0, 3)),
    ]
    assert set(deaths) <= set(all_steps)
    for last in deaths:
        death[:] = [last]
        with pytest.raises(KeyboardInterrupt):
            run(new_experiment(suite, tmp_path / "killed"))
    death.clear()
    resumed = run(new_experiment(suite, tmp_path / "killed")).rows
    assert numbers(resumed) == numbers(expected)
    assert [row.key for row in resumed] == [row.key for row in expected]
    assert taken == all_steps  # no step was taken twice
    assert not list((tmp_path / "killed").rglob("checkpoints"))


def test_layers_that_drop_at_random_give_the_same_rows_after_any_death(
    toy_suite, tmp_path, mortal, monkeypatch
):
    module, norm = sys.modules["benchmark.models.convnet"], convnet_norm
    monkeypatch.setattr(
        module, "_norm", lambda *given: nn.Sequential(norm(*given), nn.Dropout(0.5))
    )
    suite = small(toy_suite)
    _, death = mortal
    expected = run(new_experiment(suite, tmp_path / "whole")).rows
    torch.manual_seed(7)  # what ran before in this process does not matter
    before = torch.get_rng_state()
    cell = "krr-st, N = 4, convnet, seed 0"
    for last in (("pool warm-up", 1), ("outer steps", 2), ("pretraining", 3)):
        death[:] = [(cell, *last)]
        with pytest.raises(KeyboardInterrupt):
            run(new_experiment(suite, tmp_path / "killed"))
    death.clear()
    assert numbers(run(new_experiment(suite, tmp_path / "killed")).rows) == numbers(expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_probe_of_other_settings_does_not_go_on_from_one_that_was_killed(
    toy_suite, tmp_path, mortal
):
    """The features are the same, and so may be how far a fit had come."""
    taken, death = mortal
    probed = f"krr-st, N = 4, convnet, seed 0, probed on {toy_suite.source}"

    def suite(steps):
        settings = {**toy_suite.settings, "paper": {"steps": steps, "batch": 16}}
        return small(toy_suite, labels_per_class=(None,), settings=settings)

    expected = run(new_experiment(suite(5), tmp_path / "whole")).rows
    death[:] = [(probed, "steps of draws 0 to 0", 7)]
    with pytest.raises(KeyboardInterrupt):
        run(new_experiment(suite(8), tmp_path / "killed"))
    death.clear()
    taken.clear()
    assert numbers(run(new_experiment(suite(5), tmp_path / "killed")).rows) == numbers(expected)
    run(new_experiment(suite(8), tmp_path / "killed"))
    steps = [step for *_, name, step in taken if name == "steps of draws 0 to 0"]
    assert steps == [*range(5), 7]  # and the killed one goes on
    assert not list((tmp_path / "killed").rglob("checkpoints"))


SCRIPT = """
import os, pickle, signal, sys
from benchmark import loop
from benchmark.compute import Compute
from benchmark.execute import execute
from benchmark.grid import cells
from benchmark.experiment import Experiment
from benchmark.store import Store

suite, root, compute = pickle.load(sys.stdin.buffer)
loop._SAVING_SHARE = float("inf")
save = loop.CheckpointedLoop._save

def save_and_die(self, name, step, state):
    save(self, name, step, state)
    if (name, step) == ("outer steps", 2):
        os.kill(os.getpid(), signal.SIGKILL)

loop.CheckpointedLoop._save = save_and_die
loop.CheckpointedLoop.__init__.__kwdefaults__["save_every_seconds"] = 0.0
experiment = Experiment(suite, store=Store(root), compute=compute)
experiment.prepare()
execute(cells(suite), experiment, jobs=1, done=lambda rows: None)
"""


def test_a_process_that_is_killed_loses_nothing_that_was_saved(toy_suite, tmp_path, mortal):
    suite = small(toy_suite)
    taken, _ = mortal
    expected = run(new_experiment(suite, tmp_path / "whole")).rows
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=pickle.dumps((suite, tmp_path / "killed", CPU)),
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert killed.stdout == killed.stderr == b""  # no bars where there is no terminal
    taken.clear()
    assert numbers(run(new_experiment(suite, tmp_path / "killed")).rows) == numbers(expected)
    cell = "krr-st, N = 4, convnet, seed 0"
    left = [(cell, "outer steps", 2), *((cell, "pretraining", step) for step in range(4))]
    assert taken[: len(left)] == left
    assert {who for who, *_ in taken[len(left) :]} == {f"{cell}, probed on {suite.source}"}


def test_a_stage_that_was_cut_short_in_its_last_moment_is_cleaned_up(toy_suite, tmp_path):
    suite = small(toy_suite, methods=("random",))
    expected = run(new_experiment(suite, tmp_path)).rows
    (file,) = tmp_path.glob("distilled/*/distilled.safetensors")
    (file.parent / "checkpoints").mkdir()
    (file.parent / ".0123.distilled.safetensors").write_bytes(b"half a file")
    shutil.rmtree(tmp_path / "rows")
    assert numbers(run(new_experiment(suite, tmp_path)).rows) == numbers(expected)
    assert not (file.parent / "checkpoints").exists()


# ---- what a method sees, and when the test split is opened


def test_the_test_split_is_opened_after_everything_else(toy_suite, tmp_path, monkeypatch):
    events = []

    def note(event, call):
        def noted(*arguments, **settings):
            events.append(event)
            return call(*arguments, **settings)

        return noted

    load = experiment_module.load_splits

    def load_splits(name, **settings):
        splits = load(name, **settings)
        return replace(splits, _load_test=note("test", splits._load_test))

    monkeypatch.setattr(experiment_module, "load_splits", load_splits)
    teacher = teacher_origin.pretrain_teacher
    monkeypatch.setattr(teacher_origin, "pretrain_teacher", note("teacher", teacher))
    monkeypatch.setattr(Random, "distill", note("distil", Random.distill))
    monkeypatch.setattr(pretraining, "pretrain", note("pretrain", pretraining.pretrain))
    monkeypatch.setattr(probing, "probe", note("probe", probing.probe))
    suite = small(toy_suite, methods=("random",))
    run(new_experiment(suite, tmp_path))
    opened = events.index("test")
    assert events[:opened] == ["teacher", "distil", "pretrain"]
    assert [event for event in events[opened:] if event != "test"] == ["probe", "probe"]


@dataclass(frozen=True, kw_only=True)
class Peeking(Random):
    """Asks for a test split."""

    folder: str = ""
    when: str = ""

    def peek(self, when):
        if when == self.when:
            cache = Path(self.folder) / "cache"
            experiment_module.load_splits(self.folder, size=8, root=None, cache=cache).open_test()

    def distill(self, problem, *, generator, checkpoint):
        self.peek("distil")
        return super().distill(problem, generator=generator, checkpoint=checkpoint)

    def decode(self, stored, shape):
        self.peek("decode")
        return super().decode(stored, shape)


@pytest.mark.parametrize("when", ["distil", "decode"])
def test_a_test_split_is_refused_before_the_final_probe(
    toy_suite, tmp_path, image_folder, plug, when
):
    folder = tmp_path / "mine"
    shutil.copytree(image_folder, folder)
    plug("methods", "peeking", Peeking)
    suite = small(toy_suite, methods=("peeking",))
    suite = with_settings(suite, "peeking", folder=str(folder), when=when)
    outcome = run(new_experiment(suite, tmp_path))
    (reason,) = outcome.failed.values()
    assert reason == "ShutSplitError: the test split is for the final probe alone"
    assert not outcome.rows


def reachable(value, seen=None):
    """Yield everything that public attributes lead to."""
    seen = {} if seen is None else seen
    if id(value) in seen or isinstance(value, (str, int, float, torch.Tensor, type(None))):
        return
    seen[id(value)] = value
    yield value
    parts = vars(value).values() if hasattr(value, "__dict__") else ()
    if is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, (list, tuple)):
        parts = value
    if isinstance(value, dict):
        parts = value.values()
    for part in [*parts, getattr(value, "__self__", None)]:
        yield from reachable(part, seen)


@pytest.mark.parametrize("labels", [False, True])
def test_a_method_sees_its_problem_and_nothing_else(toy_suite, tmp_path, labels):
    experiment = new_experiment(small(toy_suite), tmp_path)
    problem = experiment.problem(N=4, labels=labels)
    assert {field.name for field in fields(Problem)} == {
        *("source", "images", "representations", "teacher", "labels", "num_classes"),
        *("mean", "std", "budget", "new_network", "precision", "cache"),
    }
    assert (problem.labels is not None) == (problem.num_classes is not None) == labels
    assert problem.images.shape == (60, 3, 16, 16)
    assert problem.num_floats == 4 * PAIR
    assert not [x for x in reachable(problem) if isinstance(x, (Experiment, Splits, Store))]
    assert problem.representations("rot90").shape == (60, 8)


# ---- cells that do not work


@dataclass(frozen=True, kw_only=True)
class Greedy(Random):
    """Stores one number more than it may."""

    def distill(self, problem, *, generator, checkpoint):
        stored = super().distill(problem, generator=generator, checkpoint=checkpoint)
        return {**stored, "more": torch.zeros(1)}


@dataclass(frozen=True, kw_only=True)
class Wide(Random):
    """Stores its images as numbers of eight bytes."""

    def distill(self, problem, *, generator, checkpoint):
        stored = super().distill(problem, generator=generator, checkpoint=checkpoint)
        return {**stored, "images": stored["images"].double()}


def test_a_number_has_four_bytes_at_most(toy_suite, tmp_path, plug):
    plug("methods", "wide", Wide)
    outcome = run(new_experiment(small(toy_suite, methods=("wide",)), tmp_path))
    assert [*outcome.failed.values()] == [
        "stores images as torch.float64: expected at most 4 bytes a number"
    ]


@dataclass(frozen=True, kw_only=True)
class Diverging(Random):
    """Logs a loss that is not a number."""

    def distill(self, problem, *, generator, checkpoint):
        for step in checkpoint.steps("outer steps", 3):
            checkpoint.log(step, outer_loss=torch.tensor(float("nan")))
        return {}


@dataclass(frozen=True, kw_only=True)
class Faulty(Random):
    """Has a fault."""

    def distill(self, problem, *, generator, checkpoint):
        raise ZeroDivisionError("in line\n7")


@dataclass(frozen=True, kw_only=True)
class Labelled(Random):
    """Is given labels if it says that it needs them."""

    supervision: ClassVar = "labels"

    def distill(self, problem, *, generator, checkpoint):
        assert problem.labels is not None
        return super().distill(problem, generator=generator, checkpoint=checkpoint)


def test_a_cell_that_breaks_is_named_and_the_others_go_on(toy_suite, tmp_path, plug, caplog):
    odd = {"greedy": Greedy, "diverging": Diverging, "faulty": Faulty, "labelled": Labelled}
    for name, method in odd.items():
        plug("methods", name, method)
    suite = small(toy_suite, methods=(*odd, "random"))
    outcome = run(new_experiment(suite, tmp_path))
    assert {str(cell): reason for cell, reason in outcome.failed.items()} == {
        "greedy, N = 4, convnet, seed 0": "stores 3105 numbers, but 3104 are allowed",
        "diverging, N = 4, convnet, seed 0": "outer_loss is nan at step 0 of outer steps",
        "faulty, N = 4, convnet, seed 0": "ZeroDivisionError: in line 7",
    }
    assert outcome.skipped == {}
    assert {row.label for row in outcome.rows} == {"labelled", "random"}
    assert len(list(tmp_path.glob("distilled/*/distilled.safetensors"))) == 2
    (record,) = [record for record in caplog.records if record.exc_info]  # of the fault alone
    assert record.exc_info[0] is ZeroDivisionError


def test_a_budget_that_a_method_cannot_do_with_skips_its_cell(toy_suite, tmp_path):
    suite = small(toy_suite, methods=("random", "krr-st"), budgets=(4, 100))
    suite = replace(suite, settings={**suite.settings, "krr-st": {"outer_steps": 0}})
    outcome = run(new_experiment(suite, tmp_path))
    assert outcome.failed == {}
    assert {str(cell) for cell in outcome.skipped} == {
        "random, N = 100, convnet, seed 0",
        "krr-st, N = 100, convnet, seed 0",
    }
    assert set(outcome.skipped.values()) == {
        "needs 100 images, but the source has only 60: choose a smaller budget"
    }
    assert {row.N for row in outcome.rows} == {4}


@dataclass(frozen=True, kw_only=True)
class TooMany(RandomBytes):
    """Stores a byte more than it may."""

    def distill(self, problem, *, generator, checkpoint):
        stored = super().distill(problem, generator=generator, checkpoint=checkpoint)
        used = sum(tensor.nbytes for tensor in stored.values())
        more = 4 * problem.num_floats - used + 1
        return {**stored, "more": torch.zeros(more, dtype=torch.uint8)}


def test_bytes_are_a_budget_too(toy_suite, tmp_path, plug):
    plug("methods", "too-many", TooMany)
    suite = small(toy_suite, methods=("random-bytes", "too-many"), labels_per_class=(None,))
    outcome = run(new_experiment(suite, tmp_path))
    (row,) = outcome.rows
    assert (row.label, row.N) == ("random-bytes", 4)
    assert row.num_images == 4 * 4 * PAIR // (3 * 16 * 16 + 2 * 8)
    allowed = 4 * 4 * PAIR
    assert [*outcome.failed.values()] == [f"stores {allowed + 1} bytes, but {allowed} are allowed"]


@dataclass(frozen=True, kw_only=True)
class Forgetful(RandomBytes):
    """Distils, but returns nothing."""

    def distill(self, problem, *, generator, checkpoint):
        super().distill(problem, generator=generator, checkpoint=checkpoint)


def test_a_method_that_returns_no_tensors_is_told_so(toy_suite, tmp_path, plug):
    plug("methods", "forgetful", Forgetful)
    outcome = run(new_experiment(small(toy_suite, methods=("forgetful",)), tmp_path))
    assert [*outcome.failed.values()] == [
        "Forgetful.distill: expected a dict of dense tensors by name"
    ]


@pytest.mark.parametrize(
    "made",
    [
        [],
        {3: torch.ones(2)},
        {"images": "pixels"},
        {"images": torch.ones(2).to_sparse()},
        {"images": torch.ones(2, device="meta")},
    ],
)
def test_what_cannot_be_stored_is_told_in_one_line(toy_suite, tmp_path, plug, made, caplog):
    class Odd(Random):
        def distill(self, problem, *, generator, checkpoint):
            return made

    plug("methods", "odd", Odd)
    outcome = run(new_experiment(small(toy_suite, methods=("odd",)), tmp_path))
    (said,) = outcome.failed.values()
    assert said == "Odd.distill: expected a dict of dense tensors by name"
    assert not caplog.records


@pytest.mark.parametrize(
    "decoded", [[], {"images": torch.zeros(1, 3, 16, 16)}, "small"], ids=["list", "dict", "small"]
)
def test_a_training_set_of_another_kind_is_told_in_one_line(
    toy_suite, tmp_path, plug, decoded, caplog
):
    class Odd(Random):
        def decode(self, stored, shape):
            made = super().decode(stored, shape)
            small = made.images[..., ::2, ::2]
            return replace(made, images=small) if decoded == "small" else decoded

    plug("methods", "odd", Odd)
    outcome = run(new_experiment(small(toy_suite, methods=("odd",)), tmp_path))
    (said,) = outcome.failed.values()
    assert said == "Odd.decode: expected a TrainingSet of 3x16x16 images, or None"
    assert not caplog.records


@pytest.mark.parametrize("then", ["return", "raise"])
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("images", lambda problem: problem.images.zero_()),
        ("labels", lambda problem: problem.labels.zero_()),
        (
            "representations of identity",
            lambda problem: problem.representations("identity").zero_(),
        ),
        ("teacher's head.weight", lambda problem: problem.teacher.network.head.weight.zero_()),
        ("teacher's mean", lambda problem: problem.teacher.network.mean.zero_()),
        ("teacher's statistics", lambda problem: problem.teacher.statistics[0].add_(1)),
        ("teacher's mode", lambda problem: problem.teacher.network.train()),
    ],
)
def test_a_method_that_changes_what_all_share_fails_alone(
    toy_suite, tmp_path, plug, what, change, then
):
    class Mutating(RandomLabels):
        @torch.no_grad()
        def distill(self, problem, *, generator, checkpoint):
            made = super().distill(problem, generator=generator, checkpoint=checkpoint)
            change(problem)
            if then == "raise":
                raise ZeroDivisionError
            return made

    plug("methods", "mutating", Mutating)
    suite = small(toy_suite, methods=("mutating", "random"), seeds=(0,), budgets=(3,))
    outcome = run(new_experiment(suite, tmp_path / "both"))
    (said,) = outcome.failed.values()
    reason = rf"changes .*{what}.* in place, which all methods share: .*"
    assert re.fullmatch("ZeroDivisionError:" if then == "raise" else reason, said)
    alone = run(new_experiment(replace(suite, methods=("random",)), tmp_path / "alone"))
    assert numbers(outcome.rows) == numbers(alone.rows) != []


@dataclass(frozen=True, kw_only=True)
class Particular(RandomLabels):
    """Has an evaluation of its own: batches of two, and images are whitened."""

    def decode(self, stored, shape):
        data = super().decode(stored, shape)
        mean = torch.full((3, 16, 16), 0.5)
        whitening = Whitening(
            mean=mean,
            components=torch.zeros(0, 3, 16, 16),
            scales=torch.zeros(0),
            rest=torch.tensor(2.0),
        )
        own = OwnEvaluation(recipe={"batch_size": 2}, whitening=whitening)
        return replace(data, own=own)


def test_an_own_recipe_is_what_the_method_says_and_kept_apart(toy_suite, tmp_path, plug):
    plug("methods", "particular", Particular)
    suite = small(toy_suite, methods=("particular",), budgets=(6,))
    paper, own = (
        run(new_experiment(replace(suite, recipe=recipe), tmp_path)).rows
        for recipe in ("paper", "own")
    )
    assert {(row.recipe, row.student_steps) for row in (*paper, *own)} == {("paper", 3), ("own", 9)}
    assert not {row.key for row in paper} & {row.key for row in own}
    (cell,) = cells(suite)
    for recipe in ("paper", "own"):
        experiment = new_experiment(replace(suite, recipe=recipe), tmp_path)
        distilled = distill(cell, experiment)
        network = pretrained_student(cell, distilled, experiment).network
        images = experiment.splits(suite.source).train.images[:2] / 255
        seen = (images - network.mean) / network.std if recipe == "paper" else 2 * (images - 0.5)
        torch.testing.assert_close(network.normalise(images), seen)
        torch.testing.assert_close(network.features(images), network.features_of_normalised(seen))


@dataclass(frozen=True, kw_only=True)
class Charging(RandomLabels):
    """Uses a by-product that took an hour."""

    def expect_own(self, problem, *, checkpoint):
        checkpoint.charge(3600.0)

    def distill(self, problem, *, generator, checkpoint):
        checkpoint.charge(3600.0)
        return super().distill(problem, generator=generator, checkpoint=checkpoint)


def test_seconds_are_of_the_stage_alone(toy_suite, tmp_path, monkeypatch):
    """Neither those of compressing what was distilled, nor of decoding the test split."""

    def slowly(function):
        def slow(*arguments, **settings):
            time.sleep(3)
            return function(*arguments, **settings)

        return slow

    monkeypatch.setattr(artifacts, "compressed_bytes", slowly(artifacts.compressed_bytes))
    monkeypatch.setattr(Splits, "open_test", slowly(Splits.open_test))
    outcome = run(new_experiment(small(toy_suite, methods=("random",)), tmp_path))
    for row in outcome.rows:
        assert row.distill_seconds + row.features_seconds < 3


def test_what_the_own_evaluation_asks_for_first_is_charged_once(toy_suite, tmp_path, plug):
    plug("methods", "charging", Charging)
    suite = small(toy_suite, methods=("charging",), budgets=(6,), recipe="own")
    (cell,) = cells(suite)
    distilled = distill(cell, new_experiment(suite, tmp_path))
    assert 3600 <= distilled.header["seconds"] < 7200


@dataclass(frozen=True, kw_only=True)
class Unfit(RandomLabels):
    """Cannot be evaluated as published."""

    def expect_own(self, problem, *, checkpoint):
        raise UsageError("no room")


def test_a_set_that_is_there_is_refused_an_own_evaluation_that_it_cannot_have(
    toy_suite, tmp_path, plug
):
    plug("methods", "unfit", Unfit)
    suite = small(toy_suite, methods=("unfit",), budgets=(6,))
    assert run(new_experiment(suite, tmp_path)).rows
    outcome = run(new_experiment(replace(suite, recipe="own"), tmp_path))
    assert [*outcome.skipped.values()] == ["--recipe own: no room"]


def test_a_student_of_labels_is_scored_by_its_own_classifier_on_the_source(toy_suite, tmp_path):
    downstream = (toy_suite.source, "digits")
    suite = small(
        toy_suite,
        methods=("random-labels", "random"),
        probes=("head", "paper"),
        labels_per_class=(None,),
        downstream=downstream,
        budgets=(6,),
    )
    experiment = new_experiment(suite, tmp_path)
    rows = run(experiment).rows
    assert [(row.label, row.downstream, row.probe) for row in rows] == [
        ("random-labels", suite.source, "head"),
        *(("random-labels", name, "paper") for name in downstream),
        *(("random", name, "paper") for name in downstream),
    ]
    (cell,) = (cell for cell in cells(suite) if cell.variant.method == "random-labels")
    student = pretrained_student(cell, distill(cell, experiment), experiment)
    with final_probe():
        test = experiment.splits(suite.source).open_test()
    right = student.network(test.images / 255).argmax(1) == test.labels
    assert rows[0].value == pytest.approx(100 * right.double().mean().item())


def test_rows_keep_what_distillation_lowered():
    points = [{"loss": float(loss), "step": step} for step, loss in enumerate((8, 6, 4, 3, 2, 2))]
    history = {"outer steps": points, "a loop that was done": [], "short": [{"a": 1.0, "step": 0}]}
    assert probing._falls(history) == {"a": [1.0, 1.0], "loss": [7.0, 2.0]}


def test_a_damaged_checkpoint_is_no_refusal(toy_suite, tmp_path, mortal):
    suite = small(toy_suite)
    _, death = mortal
    death[:] = [("krr-st, N = 4, convnet, seed 0", "outer steps", 2)]
    with pytest.raises(KeyboardInterrupt):
        run(new_experiment(suite, tmp_path))
    death.clear()
    (file,) = tmp_path.glob("distilled/*/checkpoints/outer-steps.pt")
    file.write_bytes(b"damaged")
    outcome = run(new_experiment(suite, tmp_path))
    assert outcome.skipped == {}
    (reason,) = outcome.failed.values()
    assert reason.startswith(f"{file}: not a checkpoint of this loop")


def test_more_labels_than_there_are_is_told_before_anything_is_made(toy_suite, tmp_path):
    suite = small(toy_suite, labels_per_class=(20, 21))
    with pytest.raises(UsageError, match=r"^21 labels a class: the smallest .* has 20 training"):
        new_experiment(suite, tmp_path).prepare()
    assert not (tmp_path / "teachers").exists()


# ---- keys


def done(suite, root, N=4, label="random"):
    """Say which cells are found in a store; a teacher that has to be made makes all of them new."""
    experiment = new_experiment(suite, root)
    (cell,) = [
        cell
        for cell in cells(suite)
        if (cell.variant.label, cell.N, cell.student) == (label, N, "convnet")
    ]
    return is_done(cell, experiment)


def test_an_emptied_file_of_rows_is_no_result(toy_suite, tmp_path):
    suite = small(toy_suite, methods=("random",))
    wanted = run(new_experiment(suite, tmp_path)).rows
    for file in tmp_path.glob("rows/*/*.jsonl"):
        file.write_text("")
    again = run(new_experiment(suite, tmp_path)).rows
    assert [row.value for row in again] == [row.value for row in wanted]


def test_another_code_of_a_method_is_another_key(toy_suite, whole, monkeypatch):
    root, _, _ = whole
    assert done(toy_suite, root)
    code_of = plugins.code_of
    for changed in ("random", "convnet", "supervised", "resnet-small"):
        monkeypatch.setattr(
            plugins,
            "code_of",
            lambda kind, name, changed=changed: "new" if name == changed else code_of(kind, name),
        )
        assert not done(toy_suite, root)


def test_another_code_of_how_networks_are_made_is_another_key(toy_suite, whole, monkeypatch):
    root, _, _ = whole
    before = network_factory.model_code("convnet")
    monkeypatch.setattr(network_factory, "code_of", lambda module: f"new {module}")
    after = network_factory.model_code("convnet")
    assert after[0] == "new benchmark.network_factory" and after[1:] == before[1:]
    assert not done(toy_suite, root)


@pytest.mark.parametrize("changed", ["benchmark.pretrain", "benchmark.probing"])
def test_another_code_of_pretraining_or_probing_is_another_key(
    toy_suite, whole, monkeypatch, changed
):
    root, _, _ = whole
    assert done(toy_suite, root)
    code_of = keys.code_of
    monkeypatch.setattr(
        keys, "code_of", lambda module: "new" if module == changed else code_of(module)
    )
    assert not done(toy_suite, root)


@pytest.mark.parametrize("changed", ["benchmark.teacher", "benchmark.pretrain_teacher"])
def test_another_code_of_teachers_is_another_key(toy_suite, whole, monkeypatch, changed):
    root, _, _ = whole
    code_of = teacher_origin.code_of
    monkeypatch.setattr(
        teacher_origin,
        "code_of",
        lambda module: "new" if module == changed else code_of(module),
    )
    assert not done(toy_suite, root)


def test_settings_that_move_no_number_are_in_no_key(toy_suite, tmp_path):
    def keys(**settings):
        given = {**toy_suite.settings, "datm": settings}
        suite = small(toy_suite, methods=("datm",), settings=given)
        experiment = new_experiment(suite, tmp_path)
        return [distilled_key(cell, experiment) for cell in cells(suite)]

    assert keys() == keys(keep_every=3, max_expert_gib=1.0) != keys(inner_steps=3)


def test_settings_that_move_no_number_keep_no_rows_out_of_a_report(toy_suite, tmp_path, plug):
    @dataclass(frozen=True, kw_only=True)
    class Chunked(Random):
        chunk: int = field(default=8, metadata=NEUTRAL)

    plug("methods", "chunked", Chunked)
    suite, found = small(toy_suite, methods=("chunked",)), []
    for seed, chunk in ((0, 8), (1, 4)):
        suite = with_settings(replace(suite, seeds=(seed,)), "chunked", chunk=chunk)
        found += run(new_experiment(suite, tmp_path)).rows
    built = report.build(found, title="", notes="")
    assert len(built.rows) == len(found) == 4
    assert built.left_out == ""


def test_the_code_of_inner_models_is_in_the_key(toy_suite, tmp_path, monkeypatch):
    experiment = new_experiment(small(toy_suite, students=("resnet-small",)), tmp_path)
    (cell,) = cells(experiment.suite)
    before = distilled_key(cell, experiment)
    code_of = plugins.code_of
    monkeypatch.setattr(
        plugins,
        "code_of",
        lambda kind, name: "new" if name == "convnet" else code_of(kind, name),
    )
    assert distilled_key(cell, experiment) != before


def test_by_products_are_kept_apart_by_what_they_depend_on(toy_suite, tmp_path, plug, monkeypatch):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Keeping(Random):
        def distill(self, problem, *, generator, checkpoint):
            seen.append(problem.cache)
            return super().distill(problem, generator=generator, checkpoint=checkpoint)

    plug("methods", "keeping", Keeping)
    suite = small(toy_suite, methods=("keeping",))
    for threads in (1, 2):
        compute = Compute(torch.device("cpu"), "fp32", threads=threads)
        run(Experiment(suite, store=Store(tmp_path), compute=compute))
    assert len(set(seen)) == 2
    monkeypatch.setattr(keys, "PROTOCOL", 2)
    run(new_experiment(suite, tmp_path))
    assert len(set(seen)) == 3


def test_the_teacher_is_the_same_whatever_share_of_threads_a_cell_has(toy_suite, tmp_path):
    alone, shared = (
        Experiment(
            toy_suite,
            store=Store(tmp_path),
            compute=Compute(torch.device("cpu"), "fp32", threads=threads, all_threads=2),
        )
        for threads in (2, 1)
    )
    before = torch.get_num_threads()
    assert alone.teacher_origin.key == shared.teacher_origin.key
    assert len(list((tmp_path / "teachers").iterdir())) == 1
    assert torch.get_num_threads() == before


def with_settings(suite, owner, **changes):
    settings = {**suite.settings, owner: {**suite.settings.get(owner, {}), **changes}}
    return replace(suite, settings=settings)


@pytest.mark.parametrize(
    ("owner", "changes"),
    [
        ("krr-st", {"outer_steps": 4}),
        ("krr-st", {"ridge": 1e-5}),
        ("convnet", {"widths": (4, 5)}),
        ("convnet", {"norm": "instance"}),
        ("mse", {"lr": 0.2}),
        ("paper", {"steps": 11}),
        ("supervised", {"lr": 0.2}),
        ("teacher", {"epochs": 2}),
        ("teacher-model", {"blocks": 2}),
    ],
)
def test_any_changed_setting_is_another_key(toy_suite, whole, owner, changes):
    root, _, _ = whole
    assert done(toy_suite, root, label="krr-st")
    assert not done(with_settings(toy_suite, owner, **changes), root, label="krr-st")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 8},
        {"seeds": (1,)},
        {"student_steps": 5},
        {"recipe": "paper"},
        {"labels_per_class": (None, 3)},
    ],
)
def test_any_other_change_of_a_suite_is_another_key(toy_suite, whole, change):
    root, _, _ = whole
    assert not done(replace(toy_suite, **change), root)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"layout": "contiguous"}])
def test_precision_and_layout_are_part_of_the_key(toy_suite, whole, changes):
    root, _, _ = whole
    compute = replace(CPU, **changes)
    experiment = Experiment(toy_suite, store=Store(root), compute=compute)
    assert not any(is_done(cell, experiment) for cell in cells(toy_suite))


@pytest.mark.parametrize(
    ("owner", "changes"),
    [
        ("convnet", {"widths": "4,4"}),
        ("krr-st", {"outer_steps": "3", "inner_widths": "(4, 4)"}),
        ("paper", {"batch": "16", "steps": "10"}),
        ("mse", {"batch_size": "8"}),
        ("supervised", {"standardise": "true", "epochs": "1"}),
        ("teacher-model", {"widths": "4, 8"}),
        ("dsa", {"ipc": 3}),
    ],
)
def test_text_order_and_idle_settings_do_not_matter(toy_suite, whole, owner, changes):
    root, _, _ = whole
    suite = with_settings(toy_suite, owner, **changes)
    backwards = {name: dict(reversed(values.items())) for name, values in suite.settings.items()}
    suite = replace(suite, settings=dict(reversed(backwards.items())), methods=("krr-st", "random"))
    assert done(suite, root, label="krr-st")


def test_other_pixels_are_other_keys(toy_suite, whole, tmp_path, image_folder):
    root, _, _ = whole
    folder = tmp_path / "moved"
    shutil.copytree(image_folder, folder)
    suite = replace(toy_suite, source=str(folder), downstream=(str(image_folder),))
    assert done(suite, root)  # the same pixels in another place
    suite = replace(toy_suite, source=str(image_folder), downstream=(str(folder),))
    assert done(suite, root)
    for split, changed in (
        ("test", replace(toy_suite, downstream=(str(folder),))),
        ("train", replace(toy_suite, source=str(folder))),
    ):
        one, two = sorted((folder / split / "class 0").iterdir())[:2]
        one.write_bytes(two.read_bytes())
        assert not done(changed, root)


def test_stored_rows_go_by_the_names_of_the_suite_that_asks(toy_suite, whole, monkeypatch):
    root, outcome, _ = whole
    renamed = replace(
        small(toy_suite, methods=("random",), controls=("teacher",)),
        name="other",
        methods=(),
        ablation=(),
        recipe="paper",
    )
    experiment = new_experiment(renamed, root)
    (cell,) = cells(renamed)
    rows = stored_rows(cell, experiment)
    before = [row for row in outcome.rows if row.label == "teacher" and row.probe == "paper"]
    assert {(row.suite, row.recipe) for row in rows} == {("other", "paper")}
    assert {row.context for row in rows}.isdisjoint(row.context for row in before)
    assert [row.value for row in rows] == [row.value for row in before]
    named = Variant(label="mine", method="random")
    (cell,) = [cell for cell in cells(toy_suite) if str(cell) == "random, N = 4, convnet, seed 0"]
    rows = stored_rows(replace(cell, variant=named), new_experiment(toy_suite, root))
    assert {row.label for row in rows} == {"mine"}


# ---- several processes


def test_processes_share_a_store_and_give_the_same_rows(toy_suite, whole, tmp_path, monkeypatch):
    _, outcome, _ = whole
    suite = small(toy_suite, methods=("random",), students=("convnet", "resnet-small"))
    monkeypatch.setattr(execute_module.torch, "get_num_threads", lambda: 2)
    experiment = new_experiment(suite, tmp_path)
    experiment.prepare()
    rows = execute(cells(suite), experiment, jobs=2, done=lambda rows: None).rows
    expected = [
        row for row in outcome.rows if row.label == "random" and row.N == 4 and row.probe == "paper"
    ]
    assert numbers(rows) == numbers(expected)


def test_losses_may_be_logged_at_some_steps_only():
    points = [{"a": 4.0, "b": 1.0, "step": 0}, *({"a": 4.0 - i, "step": i} for i in range(1, 4))]
    assert probing._falls({"outer steps": points}) == {"a": [4.0, 1.0], "b": [1.0, 1.0]}
