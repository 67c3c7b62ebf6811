"""The teachers that ship with the package are what their headers say, and can be made again."""

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
from benchmark.spec import ImageShape
from benchmark.suites.cifar100_small import cifar100_small
from benchmark.suites.quick import quick
from benchmark.teacher import load_teacher, represent_all

SUITES = {suite.name: suite for suite in (quick, cifar100_small)}


def file_of(suite):
    return Path(str(files("benchmark"))) / "assets" / f"{suite.teacher}.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_splits(quick.source, size=quick.size, root=None, cache=cache)


def load(suite):
    shape = ImageShape(3, suite.size, suite.size)
    factory = NetworkFactory(shape=shape, mean=(0.5,) * 3, std=(0.5,) * 3)
    return load_teacher(file_of(suite), factory, shape)


@pytest.mark.parametrize("name", SUITES)
def test_it_is_made_by_the_settings_of_its_suite(name):
    suite, header = SUITES[name], load(SUITES[name]).header
    kind = plugins.load("teachers", header.kind)()
    recipe = replace(header.kind, kind, suite.settings[header.kind])
    # settings that are younger than the file were at their defaults
    assert {**dataclasses.asdict(kind), **header.settings} == dataclasses.asdict(recipe)
    assert header.model_settings == suite.settings.get("teacher-model", {})
    assert header.source == suite.source
    assert header.seed == rng.seed("teacher", header.kind, 0)


@pytest.mark.parametrize(("name", "most", "d"), [("quick", 1e6, 128), ("cifar100-small", 4e6, 512)])
def test_it_is_small_and_represents_images(name, most, d):
    assert file_of(SUITES[name]).stat().st_size < most
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    representations = load(SUITES[name])(images)
    assert representations.shape == (3, d)
    assert (representations[0] - representations[1]).abs().mean() > 0.01


def test_it_is_as_good_as_its_header_says(source):
    teacher = load(quick)
    assert teacher.header.fingerprint == source.train.fingerprint
    representations = represent_all(teacher, source.train.images)
    torch.testing.assert_close(
        representations.mean(0), torch.zeros(teacher.network.num_features), atol=0.05, rtol=0
    )
    accuracy = held_out_accuracy(
        representations, source.train.labels, held_out_tenth(source.train), 10
    )
    assert accuracy == pytest.approx(teacher.header.held_out["10_labels_per_class"], abs=1.0)
    assert accuracy > 75
