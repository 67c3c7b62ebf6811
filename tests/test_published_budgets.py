"""What the self-supervised methods really write to a file, at every published budget."""

import pytest
import torch

from benchmark import artifacts
from benchmark.loop import CheckpointedLoop
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.methods.pca import Pca
from benchmark.methods.random import Random
from benchmark.spec import Budget, Problem

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
    ],
    ids=["random", "krr-st", "pca", "ours: bases only"],
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
    count, allowed = artifacts.count_numbers(tensors), budget * (3 * 32 * 32 + D)
    assert allowed - 400 < count <= allowed  # an image of `ours` takes 400 numbers at most
