"""What methods really write to a file, at every published budget."""

import pytest
import torch

from benchmark import artifacts
from benchmark.loop import CheckpointedLoop
from benchmark.methods.dsa import Dsa
from benchmark.methods.idm import Idm
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.methods.pca import Pca
from benchmark.methods.random import Random
from benchmark.methods.random_bytes import RandomBytes
from benchmark.methods.random_labels import RandomLabels
from benchmark.network_factory import NetworkFactory
from benchmark.spec import Budget, ImageShape, Problem

N_REAL, D = 45_000, 512


@pytest.fixture(scope="module")
def cifar100_shaped():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N_REAL, 3, 32, 32), dtype=torch.uint8, generator=generator)
    # one small set of numbers in many places: only counts and shapes matter here
    representations = torch.randn(900, D, generator=generator).repeat(N_REAL // 900, 1)
    return images, representations


@pytest.mark.parametrize("budget", [25, 50, 100, 1000, 5000])
@pytest.mark.parametrize(
    "method",
    [
        Random(),
        KrrSt(outer_steps=0),
        Pca(approximation_steps=1),
        Ours(outer_steps=0, augmentations=(), approximation=False),
        Ours(outer_steps=0, approximation=False),
        RandomBytes(),
    ],
    ids=["random", "krr-st", "pca", "ours: bases only", "ours: views", "random-bytes"],
)
def test_files_keep_to_the_published_budgets(method, budget, cifar100_shaped, tmp_path):
    images, representations = cifar100_shaped
    problem = Problem(
        source="toy",
        images=images,
        representations=lambda view: representations,
        teacher=lambda x: x.flatten(1)[:, :D],
        labels=None,
        num_classes=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        budget=Budget(budget),
        new_network=lambda *arguments, **settings: None,
    )
    stored = method.distill(
        problem,
        generator=torch.Generator().manual_seed(0),
        checkpoint=CheckpointedLoop(None, description="test"),
    )
    artifacts.write(tmp_path / "distilled.safetensors", stored, {})
    tensors, _ = artifacts.read(tmp_path / "distilled.safetensors")
    allowed = budget * (3 * 32 * 32 + D)
    if method.limit == "bytes":
        whole = len(tensors["images"]) in (len(images), 4 * allowed // (3 * 32 * 32 + 2 * D))
        assert whole and artifacts.count_bytes(tensors) <= 4 * allowed
    else:  # one more image of `ours` takes 1 000 numbers at most
        assert allowed - 1000 < artifacts.count_numbers(tensors) <= allowed


TINY = {"inner_widths": (4, 4, 4), "real_batch": 1}


@pytest.mark.parametrize("budget", [100, 1000, 5000])
@pytest.mark.parametrize(
    "method",
    [
        RandomLabels(),
        Dsa(**TINY, num_inner_models=1, outer_steps_per_model=1, inner_epochs=1),
        Idm(
            **TINY,
            outer_steps=1,
            cross_entropy_weight=1.0,
            birth_interval=1,
            inner_steps=1,
            meter_reset_interval=0,
            start="quarters",
            initial_models=1,
            trained_models=1,
        ),
    ],
    ids=["random-labels", "dsa", "idm"],
)
def test_labelled_sets_keep_to_the_published_budgets(method, budget, cifar100_shaped):
    images, representations = cifar100_shaped
    problem = Problem(
        source="toy",
        images=images,
        representations=lambda view: representations,
        teacher=lambda x: x.flatten(1)[:, :D],
        labels=torch.arange(N_REAL) % 100,
        num_classes=100,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        budget=Budget(budget),
        new_network=NetworkFactory(
            shape=ImageShape(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        ),
    )
    stored = method.distill(
        problem,
        generator=torch.Generator().manual_seed(0),
        checkpoint=CheckpointedLoop(None, description="test"),
    )
    assert artifacts.count_numbers(stored) == budget * 3 * 32 * 32 <= problem.num_floats
