"""What a suite takes: what is shared counts once, what is unknown is said, workers divide."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from benchmark.grid import cells
from benchmark.images import final_probe, load_splits, sizes_of
from benchmark.methods.random import Random
from benchmark.network_factory import NetworkFactory
from benchmark.planning.devices import Device
from benchmark.planning.network_cost import PassCost
from benchmark.planning.networks import Networks
from benchmark.planning.planner import predict
from benchmark.spec import ImageShape, UsageError
from benchmark.workload import Forecast, Work


class Free(Networks):
    """Networks whose cost is not counted: here it is of no interest."""

    def cost(self, architecture, batch, *, training):
        return PassCost(operators=(), saved=0, weights=4)


class Metronome(Device):
    """Every image takes a second, whatever the network; nothing else takes any time."""

    captures = False

    def __init__(self, side):
        factory = NetworkFactory(shape=ImageShape(3, side, side), mean=(0.5,) * 3, std=(0.5,) * 3)
        self.name, self.networks = "metronome", Free(factory)

    def pass_seconds(self, architecture, batch, *, training):
        return float(batch)

    def seconds(self, work: Work):
        return float(work.forward + work.training)


@pytest.fixture
def planned(toy_suite):
    def plan(**changes):
        suite = replace(toy_suite, **changes)
        return suite, predict(suite, cells(suite), Metronome(suite.size))

    return plan


def tasks_of(prediction, stage):
    return [task for task in prediction.tasks if task.stage == stage]


def test_students_share_a_distilled_set(planned):
    """Two students, one budget: one set each method, a student each, features of each."""
    suite, prediction = planned(
        controls=(), methods=("random", "krr-st"), budgets=(4,), ablation=(), seeds=(0, 1)
    )
    assert len(cells(suite)) == len(prediction.chains) == 2 * 2 * 2
    assert len(tasks_of(prediction, "distillation")) == 2 * 2
    assert len(tasks_of(prediction, "pretraining")) == 2 * 2 * 2
    assert len(tasks_of(prediction, "features")) == 2 * 2 * 2
    assert len(tasks_of(prediction, "probes")) == 2 * 2 * 2 * 4
    keys = [task.key for task in prediction.tasks]
    assert len(set(keys)) == len(keys)


def test_students_take_the_steps_that_pretraining_takes(planned):
    """Four steps of all four pairs; by epochs, three times both batches of six pairs."""
    _, prediction = planned(controls=(), methods=("random",), budgets=(4,), ablation=())
    assert {task.seconds for task in tasks_of(prediction, "pretraining")} == {4 * 4}
    _, prediction = planned(
        controls=(),
        methods=("random",),
        budgets=(12,),
        ablation=(),
        recipe="paper",
    )
    assert {task.seconds for task in tasks_of(prediction, "pretraining")} == {3 * 12}


def test_an_own_recipe_changes_the_steps_where_it_is_asked_for(planned, monkeypatch):
    def forecast(self, problem):
        return Forecast(pairs=12, own_recipe={"batch_size": 4})

    monkeypatch.setattr(Random, "forecast", forecast)
    suite = {"controls": (), "methods": ("random",), "budgets": (12,), "ablation": ()}
    monkeypatch.setattr(Metronome, "seconds", lambda self, work: float(work.launches))
    for recipe, batches in (("paper", 2), ("own", 3)):
        _, prediction = planned(**suite, recipe=recipe, student_epochs=60)
        steps = 60 * batches
        assert {task.seconds for task in tasks_of(prediction, "pretraining")} == {4 * steps}


def test_features_are_those_of_both_splits(planned):
    _, prediction = planned(controls=("untrained",), methods=(), ablation=())
    assert {task.seconds for task in tasks_of(prediction, "features")} == {60 + 24}
    assert tasks_of(prediction, "pretraining") == []


def test_teacher_and_representations_come_first(planned):
    """One epoch of whole batches of nine tenths, two looks at all; then four views of `ours`."""
    _, prediction = planned(methods=("ours",), controls=(), ablation=())
    teacher, *views = prediction.shared
    assert teacher.seconds == 16 * (54 // 16) + 2 * 60
    assert [view.seconds for view in views] == [60] * 4
    assert views[0].disk == 4 * 60 * 8  # d = 8


def test_more_workers_divide_all_but_what_they_wait_for(planned):
    _, prediction = planned(seeds=(0, 1, 2))
    shared = sum(task.seconds for task in prediction.shared)
    rest = sum(task.seconds for task in prediction.tasks) - shared
    longest = max(sum(task.seconds for task in chain) for chain in prediction.chains.values())
    assert prediction.wall_seconds(1) == pytest.approx(shared + rest)
    assert prediction.wall_seconds(2) == pytest.approx(shared + rest / 2)
    assert prediction.wall_seconds(10**6) == pytest.approx(shared + longest)
    assert 0 < longest < rest / 2


def test_by_products_count_once(planned, toy_suite):
    """All seeds and budgets share experts, whose seconds each of them is charged with."""
    settings = {
        "datm": {
            **{"outer_steps": 2, "inner_steps": 2, "target_epochs": 1, "expansion_steps": 1},
            **{"start_epochs": (0, 1, 2), "inner_batch": 4, "threshold": 1.0, "image_lr": 1.0},
            **{"logit_lr": 1.0, "lr_lr": 0.1, "initial_images": "real", "num_experts": 2},
            **{"expert_epochs": 3, "expert_batch": 20, "inner_widths": (4, 4)},
        }
    }
    suite, prediction = planned(
        methods=("datm",),
        controls=(),
        ablation=(),
        budgets=(3, 6),
        seeds=(0, 1),
        settings={**toy_suite.settings, **settings},
    )
    (experts,) = tasks_of(prediction, "by-products")
    assert experts.seconds == 2 * 2 * 3 * 60
    assert experts.disk > 0
    assert {task.charged for task in tasks_of(prediction, "distillation")} == {experts.seconds}
    assert suite.methods == ("datm",)


def test_what_is_done_takes_nothing(planned):
    _, prediction = planned(controls=(), methods=("random",), budgets=(4,), ablation=())
    (distilled,) = tasks_of(prediction, "distillation")
    left = prediction.without([("teacher",), distilled.key])
    assert len(left.tasks) == len(prediction.tasks) - 2
    assert not tasks_of(left, "teacher") and not tasks_of(left, "distillation")


def test_a_budget_that_a_method_refuses_is_told(planned):
    suite, prediction = planned(
        controls=(), methods=("random-labels",), budgets=(3, 4), ablation=()
    )
    (cell,) = prediction.refused
    assert cell.N == 4 and "nearest budgets" in prediction.refused[cell]
    assert len(prediction.chains) == len(suite.students)


@dataclass(frozen=True, kw_only=True)
class Silent:
    """A method that says nothing of itself."""

    supervision: ClassVar[str] = "none"
    limit: ClassVar[str] = "numbers"

    def distill(self, problem, *, generator, checkpoint):
        raise AssertionError("distilled")

    def decode(self, stored, shape):
        raise AssertionError("decoded")


def test_a_method_that_says_nothing_is_unknown(planned, plug):
    plug("methods", "silent", Silent)
    _, prediction = planned(controls=(), methods=("silent",), budgets=(4,), ablation=())
    assert prediction.unknown == ["silent, N = 4", "convnet", "resnet-small"]
    assert all(task.seconds is not None for task in tasks_of(prediction, "features"))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cifar100", (50_000, 10_000, 100)),
        ("cifar100:10", (5_000, 1_000, 10)),
        ("cifar100:held-out", (40_000, 10_000, 100)),
        ("cifar100:10:held-out", (4_000, 1_000, 10)),
    ],
)
def test_sizes_need_no_images(name, sizes):
    assert sizes_of(name) == sizes


def test_sizes_are_those_of_the_images(image_folder, tmp_path):
    for name in ("digits", "digits:held-out", str(image_folder)):
        splits = load_splits(name, size=8, root=None, cache=tmp_path)
        with final_probe():
            found = len(splits.train.labels), len(splits.open_test().labels), splits.num_classes
        assert sizes_of(name) == found


def test_a_dataset_has_only_so_many_classes():
    with pytest.raises(UsageError, match="cifar100:200: expected 2 to 100 classes"):
        sizes_of("cifar100:200")
