"""A plan beside what was measured: each stage once, and factors that are factors."""

import pytest

from benchmark.grid import Cell, Variant
from benchmark.planning.measured import compare, measured_seconds, summary
from benchmark.planning.prediction import Prediction, Task


def task(stage, line, *key, seconds, charged=0):
    return Task(line=line, key=(stage, *key), seconds=seconds, charged=charged)


@pytest.fixture
def prediction():
    place = ("ours", 100, 0)
    tasks = (
        task("distillation", "ours, N = 100", *place, seconds=30, charged=90),
        task("pretraining", "convnet", *place, "convnet", seconds=5),
        task("pretraining", "vit", *place, "vit", seconds=7),
        task("features", "convnet on cifar100", *place, "convnet", "cifar100", seconds=0.5),
    )
    cell = Cell(variant=Variant(label="ours", method="ours"), N=100, student="convnet", seed=0)
    return Prediction(shared=(), chains={cell: tasks})


@pytest.fixture
def rows(new_row):
    """Two probes of one student, and another student of the same set."""
    return [
        new_row(label="ours", student="convnet", probe="paper", features_seconds=0.25),
        new_row(label="ours", student="convnet", probe="fair", features_seconds=0.25),
        new_row(label="ours", student="vit", pretrain_seconds=7.0, features_seconds=9.0),
    ]


def test_what_rows_share_was_measured_once(rows):
    found = measured_seconds(rows)
    assert found["distillation", "ours", 100, 0] == 60
    assert sorted(key[0] for key in found) == [
        *("distillation", "features", "features", "pretraining", "pretraining"),
        *("probes", "probes", "probes"),
    ]


def test_lines_are_compared_where_both_are_known(prediction, rows):
    lines = compare(prediction, rows)
    assert lines["distillation", "ours, N = 100"].ratio == pytest.approx((30 + 90) / 60)
    assert lines["pretraining", "convnet"].ratio == pytest.approx(5 / 10)
    assert lines["pretraining", "vit"].ratio == pytest.approx(1)
    assert lines["features", "convnet on cifar100"].ratio is None  # too short to say


def test_an_error_is_a_factor_either_way(prediction, rows):
    said = summary(compare(prediction, rows))  # twice as long, half as long, and as long
    assert "Over the 3 rows" in said and "median factor of 2.00, and by at most 2.00" in said
    assert f"{(120 + 5 + 7) / (60 + 10 + 7):.2f} times" in said


def test_nothing_measured_is_said(prediction):
    assert summary(compare(prediction, [])) == (
        "No row of the plan was measured for a second or more."
    )


def test_what_a_finished_set_was_made_from_is_not_left_to_do():
    place = ("datm", 100, 0)
    distilled = task("distillation", "datm", *place, seconds=30)
    tasks = (
        task("by-products", "of datm", "datm", seconds=90),
        distilled,
        task("pretraining", "convnet", *place, "convnet", seconds=5),
    )
    cell = Cell(variant=Variant(label="datm", method="datm"), N=100, student="convnet", seed=0)
    plan = Prediction(shared=(), chains={cell: tasks})
    assert [task.stage for task in plan.without([distilled.key]).tasks] == ["pretraining"]
    assert plan.without([]).tasks == tasks
