"""What cannot work is refused in one line, before anything is made."""

import re
from dataclasses import replace

import pytest
import torch

from benchmark import cli, plugins, teacher_origin
from benchmark.loop import CheckpointedLoop
from benchmark.methods.datm import Datm
from benchmark.methods.dsa import Dsa
from benchmark.methods.idm import Idm
from benchmark.settings import replace as set_fields
from benchmark.spec import UsageError

SMALL = Idm(
    outer_steps=6,
    cross_entropy_weight=0.5,
    real_batch=6,
    birth_interval=2,
    inner_steps=1,
    meter_reset_interval=0,
    start="quarters",
    queue_size=4,
    inner_batch=8,
    inner_widths=(8, 8),
)


@pytest.fixture
def toy(monkeypatch, plug, toy_suite, tmp_path, capsys):
    """Run a part of the toy suite, which has 3 classes of 20 images; no teacher may be made."""

    def forbidden(*arguments, **settings):
        raise AssertionError("a teacher was made")

    plug("suites", "toy", toy_suite)
    monkeypatch.setattr(teacher_origin, "pretrain_teacher", forbidden)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        line = ["run", "--suite", "toy", "--controls", "none", "--students", "convnet"]
        line += ["--probes", "paper", "--jobs", "1", "--store", str(tmp_path / "store")]
        code = cli.main([*line, *words])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.mark.parametrize(
    ("method", "N", "reason"),
    [
        ("dsa", "3", "dsa has no published recipe for .*patterns at 1 per class; the nearest is "),
        ("idm", "30", "idm has no published recipe for .*; the nearest is cifar10-ipc10: "),
        ("datm", "60", "datm has no published recipe .*: set datm.recipe=cifar10-ipc10 to use it"),
        ("dsa", "2", "dsa at N=2: less than one image for each of 3 classes"),
        ("idm", "4", "idm at N=4: .* nearest budgets that give it are 3 and 6$"),
        ("random", "61", "needs 61 images, but the source has only 60: choose a smaller budget"),
        ("krr-st", "61", "needs 61 images, but the source has only 60: choose a smaller budget"),
        ("random-labels", "63", "random-labels at N=63: needs 21 images per class, but class 0"),
    ],
)
def test_a_run_that_is_refused_whole_makes_no_teacher(toy, method, N, reason):
    words = ("--methods", method, "--budgets", N)
    code, out, errors = toy(*words)
    assert (code, out) == (2, [])
    assert re.match(f"skipped: {method}, N = {N}, convnet, seed 0: {reason}", errors[0])
    assert errors[1:] == ["benchmark: nothing could be run, for the reasons above"]
    code, out, errors = toy(*words, "--dry-run")
    assert (code, errors) == (0, [])
    (line,) = out
    assert re.match(f"refused: {method}, N = {N}, convnet, seed 0: {reason}", line)


def test_a_dry_run_shows_refused_cells_among_the_others(toy):
    code, out, _ = toy("--methods", "random,random-labels", "--budgets", "3,2", "--dry-run")
    assert code == 0
    assert [line.partition(":")[0] for line in out[: out.index("")]] == [
        "to do  random, N = 3, convnet, seed 0",
        "to do  random-labels, N = 3, convnet, seed 0",
        "to do  random, N = 2, convnet, seed 0",
        "refused",
    ]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        *((f"{name}.real_batch=0", "1 or more") for name in ("dsa", "idm")),
        *((f"{name}.inner_batch=0", "1 or more") for name in ("dsa", "idm", "datm")),
        *((f"{name}.inner_widths=8,0", "1 or more") for name in ("dsa", "idm", "datm", "ours")),
        *((f"{name}.outer_lr=-1", "0 or more") for name in ("dsa", "idm")),
        *((f"{name}.outer_momentum=1.0", "0 to below 1") for name in ("dsa", "idm")),
        *((f"{name}.outer_steps=-3", "0 or more") for name in ("idm", "datm", "krr-st")),
        ("dsa.num_inner_models=-1", "0 or more"),
        ("dsa.batch_norm_images=0", "1 or more"),
        ("dsa.outer_steps_per_model=0", "1 or more"),
        ("dsa.inner_epochs=-1", "0 or more"),
        ("idm.birth_interval=0", "1 or more"),
        ("idm.queue_size=0", "1 or more"),
        ("idm.initial_models=0", "1 or more"),
        ("idm.group_images=0", "1 or more"),
        ("idm.inner_momentum=2.0", "0 to below 1"),
        ("idm.inner_weight_decay=-0.1", "0 or more"),
        ("idm.cross_entropy_weight=-1.0", "0 or more"),
        ("datm.initial_lr=-1.0", "a number above 0"),
        ("datm.zca_eps=0.0", "a number above 0"),
        ("datm.expert_lr=0.0", "a number above 0"),
        ("datm.logit_momentum=1.0", "0 to below 1"),
        ("datm.lr_lr=-1e-05", "0 or more"),
        ("datm.start_epochs=3,2,4", "three epochs, the first below"),
        ("ours.approximation_steps=-1", "0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_told_in_one_line(setting, expected):
    owner, _, assignment = setting.partition(".")
    name, _, text = assignment.partition("=")
    with pytest.raises(UsageError) as caught:
        set_fields(owner, plugins.load("methods", owner)(), {name: text})
    message = str(caught.value)
    assert re.match(rf"{owner}: {name}={re.escape(text)}(\.0)?: expected {expected}", message)
    assert "\n" not in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("method", "name"), [("datm", "max_expert_gib"), ("dsa", "outer_lr"), ("idm", "inner_lr")]
)
def test_what_is_no_number_is_refused(method, name, value):
    with pytest.raises(UsageError, match=f"^{name}="):
        plugins.load("methods", method)(**{name: value})


@pytest.mark.parametrize("method", ["dsa", "idm", "datm"])
def test_unknown_names_get_help_before_anything_runs(method, capsys):
    line = ["run", "--methods", method, "--dry-run"]
    assert cli.main([*line, "--set", f"{method}.augmentations=flipp"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{method}: unknown augmentation 'flipp': did you mean 'flip'?" in error
    assert cli.main([*line, "--set", f"{method}.recipe=cifar10-ipc7"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{method}: recipe=cifar10-ipc7: expected a dataset (cifar10, cifar100, " in error


def test_distilling_refuses_what_checking_does(labelled_problem):
    problem = labelled_problem(N=6)
    experts = {"recipe": "cifar10-ipc1", "inner_widths": (8, 8)}
    for method in (
        Dsa(),
        Idm(),
        replace(SMALL, inner_widths=(8,) * 7),
        Dsa(recipe="cifar10-ipc1", inner_widths=(8,) * 7),
        Dsa(recipe="cifar10-ipc1", inner_model="resnet18"),
        Datm(**experts, max_expert_gib=1e-6),
        Datm(**experts, inner_norm=None),
    ):
        loop = CheckpointedLoop(None, description="refused")
        with pytest.raises(UsageError) as checked:
            method.check(problem.outline)
        with pytest.raises(UsageError) as distilled:
            method.distill(problem, generator=torch.Generator(), checkpoint=loop)
        assert str(checked.value) == str(distilled.value)


# ---- IDM: how it starts, and what shows that it works


def distil(method, problem, loop):
    generator = torch.Generator().manual_seed(0)
    return method.distill(problem, generator=generator, checkpoint=loop)["images"]


def test_a_canvas_may_begin_as_one_whole_image(labelled_problem):
    problem = labelled_problem(N=6)
    method = replace(SMALL, outer_steps=0, start="whole")
    canvases = distil(method, problem, CheckpointedLoop(None, description="idm"))
    for c, of_class in enumerate(canvases):
        real = problem.images[problem.labels == c] / 255
        for canvas in of_class:
            assert (real - canvas).abs().amax((1, 2, 3)).min() < 1e-6


def test_the_objective_falls_under_the_same_networks(labelled_problem):
    loop = CheckpointedLoop(None, description="idm")
    method = replace(SMALL, outer_steps=40, cross_entropy_weight=0.05)
    distil(method, labelled_problem(N=3), loop)
    first, last = (point["objective"] for point in loop.history["objective"])
    assert last < 0.8 * first
    assert set(loop.history["outer steps"][0]) == {"step", "feature_distance", "cross_entropy"}
    still = CheckpointedLoop(None, description="idm")
    distil(replace(SMALL, outer_lr=0.0), labelled_problem(N=3), still)
    first, last = (point["objective"] for point in still.history["objective"])
    assert first == last > 0


@pytest.mark.parametrize(("loop_name", "at"), [("outer steps", 3), ("objective", 1)])
def test_the_comparison_survives_being_killed(labelled_problem, tmp_path, loop_name, at):
    class Killed(CheckpointedLoop):
        def log(self, step, **values):
            super().log(step, **values)
            if self._name == loop_name and step == at:
                raise KeyboardInterrupt

    problem = labelled_problem(N=6)
    whole = CheckpointedLoop(None, description="idm")
    distil(SMALL, problem, whole)
    with pytest.raises(KeyboardInterrupt):
        distil(SMALL, problem, Killed(tmp_path, description="idm", save_every_seconds=-1.0))
    resumed = CheckpointedLoop(tmp_path, description="idm")
    distil(SMALL, problem, resumed)
    assert resumed.history["objective"] == whole.history["objective"]


@pytest.mark.parametrize("method", ["krr-st", "ours"])
def test_inner_models_that_cannot_take_the_images_make_no_teacher(toy, method):
    widths = f"{method}.inner_widths=8,8,8,8,8,8"
    code, _, errors = toy("--methods", method, "--budgets", "4", "--set", widths)
    assert code == 2
    assert "convnet" in errors[0] and "16x16" in errors[0]
