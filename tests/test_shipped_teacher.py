"""The teacher that ships with the package is what its header says, and can be made again."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from benchmark import plugins, rng
from benchmark.held_out import held_out_accuracy, held_out_tenth
from benchmark.images import load_splits
from benchmark.network_factory import NetworkFactory
from benchmark.settings import replace
from benchmark.suites.quick import quick
from benchmark.teacher import load_teacher

FILE = Path(str(files("benchmark"))) / "assets" / f"{quick.teacher}.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_splits(quick.source, size=quick.size, root=None, cache=cache)


@pytest.fixture(scope="module")
def teacher(source):
    shape = source.train.shape
    factory = NetworkFactory(shape=shape, mean=source.mean, std=source.std)
    return load_teacher(FILE, factory, shape)


def test_it_is_made_by_the_settings_of_its_suite(source, teacher):
    header = teacher.header
    kind = plugins.load("teachers", header.kind)()
    recipe = replace(header.kind, kind, quick.settings[header.kind])
    assert header.settings == dataclasses.asdict(recipe)
    assert header.model_settings == quick.settings.get("teacher-model", {})
    assert header.fingerprint == source.train.fingerprint
    assert header.seed == rng.seed("teacher", header.kind, 0)


def test_it_is_as_good_as_its_header_says(source, teacher):
    representations = teacher.represent_all(source.train.images)
    torch.testing.assert_close(representations.mean(0), torch.zeros(teacher.d), atol=0.05, rtol=0)
    accuracy = held_out_accuracy(
        representations, source.train.labels, held_out_tenth(source.train), 10
    )
    assert accuracy == pytest.approx(teacher.header.held_out["10_labels_per_class"], abs=1.0)
    assert accuracy > 75


def test_it_is_small():
    assert FILE.stat().st_size < 1_000_000
