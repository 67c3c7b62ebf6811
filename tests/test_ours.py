from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from benchmark import views
from benchmark.loop import CheckpointedLoop
from benchmark.methods import ours
from benchmark.methods._distilled import Bases
from benchmark.methods.krr_st import KrrSt
from benchmark.methods.ours import Ours
from benchmark.methods.pca import Pca
from benchmark.pretrain import Length, Recipe, pretrain

CHEAP = {
    "outer_steps": 8,
    "outer_lr": 0.01,
    "real_batch": 16,
    "pool_size": 2,
    "max_age": 3,
    "inner_widths": (4, 6),
}
TINY = Ours(**CHEAP, approximation_steps=30)
VIEWS = ("identity", "rot90", "rot180", "rot270")
BASES = {
    *("image_bases", "image_mean", "image_coefficients"),
    *("target_bases", "target_mean", "target_coefficients"),
}
NETWORKS = {f"approximation_{part}_{layer}" for part in ("weight", "bias") for layer in (1, 2)}


def distil(method, problem, *, seed=0):
    return method.distill(
        problem,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=CheckpointedLoop(None, description="toy"),
    )


@pytest.fixture
def in_memory(monkeypatch):
    """The distilled set as it was when the outer loop ended."""
    kept = []

    class Spy(ours.Bilevel):
        def run(self, checkpoint):
            super().run(checkpoint)
            kept.append(self.distilled)

    monkeypatch.setattr(ours, "Bilevel", Spy)
    return kept


SETTINGS = {
    "all": {},
    "no approximation": {"approximation": False},
    "no augmentation": {"augmentations": ()},
    "no bases": {"bases": False},
    "views only": {"bases": False, "approximation": False},
    "a flip": {"augmentations": ("flip",)},
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "extra", [{}, {"raw_distilled": True}, {"outer_views": "one"}, {"distilled_batch": 3}]
)
def test_with_all_components_off_it_is_krr_st_number_for_number(toy_problem, whole, seed, extra):
    problem = toy_problem()
    off = Ours(**CHEAP, **extra, bases=False, augmentations=(), approximation=False)
    baseline = KrrSt(**CHEAP, **extra)
    mine, theirs = distil(off, problem, seed=seed), distil(baseline, problem, seed=seed)
    assert torch.equal(mine["images"], theirs["images"])
    assert torch.equal(mine["targets"], theirs["targets"].unsqueeze(0))
    decoded, expected = off.decode(mine, problem.shape), baseline.decode(theirs, problem.shape)
    for part, twin in zip(whole(decoded), whole(expected), strict=True):
        assert torch.equal(part, twin)
    assert (decoded.views, decoded.objective) == (expected.views, expected.objective)


@pytest.mark.parametrize("setting", SETTINGS)
def test_only_what_is_needed_is_stored(toy_problem, in_memory, setting):
    method = replace(TINY, **SETTINGS[setting])
    problem = toy_problem()
    stored = distil(method, problem)
    approximated = method.approximation and bool(method.augmentations)
    expected = BASES if method.bases else {"images", "targets"}
    assert set(stored) == expected | (NETWORKS if approximated else set())
    codes = in_memory[0].codes
    kept = stored["target_coefficients" if method.bases else "targets"]
    assert torch.equal(kept, codes[:1] if approximated else codes)
    assert codes.shape[0] == 1 + len(method.augmentations)
    assert sum(tensor.numel() for tensor in stored.values()) <= problem.num_floats


def perceptron(stored, network, codes):
    """Prediction of one approximation network, by torch's own layers."""
    q, hidden = stored["approximation_weight_1"][network].shape
    twin = nn.Sequential(nn.Linear(q, hidden), nn.ReLU(), nn.Linear(hidden, q))
    for layer, number in ((twin[0], 1), (twin[2], 2)):
        layer.weight.data = stored[f"approximation_weight_{number}"][network].T
        layer.bias.data = stored[f"approximation_bias_{number}"][network]
    return twin(codes).detach()


@pytest.mark.parametrize("setting", SETTINGS)
def test_decodes_to_the_set_in_memory(toy_problem, in_memory, whole, setting):
    method = replace(TINY, **SETTINGS[setting])
    problem = toy_problem()
    stored = distil(method, problem)
    decoded = method.decode(stored, problem.shape)
    distilled = in_memory[0]
    images, targets = whole(decoded)
    assert decoded.images.shape == images.shape
    torch.testing.assert_close(images, distilled.images())
    assert decoded.views == ("identity", *method.augmentations)
    assert decoded.objective == "mse"
    torch.testing.assert_close(targets[0], distilled.targets(distilled.codes[0]))
    for view in range(1, len(decoded.views)):
        codes = distilled.codes[view]
        if method.approximation:
            codes = distilled.codes[0] + perceptron(stored, view - 1, distilled.codes[0])
        torch.testing.assert_close(targets[view], distilled.targets(codes))


def test_starts_from_the_best_bases(toy_problem, whole):
    """By a singular value decomposition of all images (halved) and all views' representations."""
    problem = toy_problem()
    method = replace(TINY, outer_steps=0, approximation=False)
    stored = distil(method, problem)
    storage = method.storage(problem)

    halved = avg_pool2d(problem.images / 255, 2).flatten(1)
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(0))[: storage.m]
    expected = rank_limited(halved, storage.num_image_bases)[chosen].unflatten(1, (3, 4, 4))
    expected = interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
    images, targets = whole(method.decode(stored, problem.shape))
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)

    everything = torch.cat([problem.representations(view) for view in VIEWS])
    expected = rank_limited(everything, storage.num_target_bases).unflatten(0, (4, 60))[:, chosen]
    torch.testing.assert_close(targets, expected, rtol=1e-4, atol=1e-5)

    for name in ("image_bases", "target_bases"):
        rows = stored[name].flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-5)
    torch.testing.assert_close(stored["image_mean"].flatten(), halved.mean(0))
    torch.testing.assert_close(stored["target_mean"], everything.mean(0))


def rank_limited(rows, rank):
    mean = rows.double().mean(0)
    u, s, v = np.linalg.svd((rows.double() - mean).numpy(), full_matrices=False)
    return (torch.from_numpy(u[:, :rank] * s[:rank] @ v[:rank]) + mean).float()


def test_bases_and_coefficients_move_and_means_stay(toy_problem):
    problem = toy_problem()
    start = distil(replace(TINY, outer_steps=0, approximation=False), problem)
    end = distil(replace(TINY, approximation=False), problem)
    same = {name for name in start if torch.equal(start[name], end[name])}
    assert same == {"image_mean", "target_mean"}


def test_every_seed_image_has_the_teachers_targets_of_its_own_views(toy_problem):
    problem = toy_problem()
    stored = distil(replace(TINY, bases=False, approximation=False, outer_steps=0), problem)
    for view, codes in zip(VIEWS, stored["targets"], strict=True):
        turned = views.apply(view, stored["images"])
        torch.testing.assert_close(codes, problem.teacher(turned))


def test_optimising_lowers_its_own_loss(toy_problem):
    problem = toy_problem(n=200)
    method = replace(TINY, outer_steps=60, real_batch=64, outer_lr=0.003)
    loop = CheckpointedLoop(None, description="toy")
    method.distill(problem, generator=torch.Generator().manual_seed(0), checkpoint=loop)
    losses = [point["outer_loss"] for point in loop.history["outer steps"]]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:15])


def test_the_control_pca_is_ours_without_a_step(toy_problem):
    problem = toy_problem()
    assert Pca().outer_steps == 0
    control = replace(Pca(), approximation_steps=30)
    assert {**asdict(control), "outer_steps": 8} == {
        **asdict(Ours(approximation_steps=30)),
        "outer_steps": 8,
    }
    stored, expected = distil(control, problem), distil(replace(TINY, outer_steps=0), problem)
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_the_published_settings_are_the_default():
    published = {
        "outer_steps": 30_000,
        "outer_lr": 1e-3,
        "real_batch": 1024,
        "pool_size": 10,
        "max_age": 1000,
        "inner_widths": (128, 256, 512),
        "inner_lr": 0.1,
        "inner_momentum": 0.9,
        "inner_weight_decay": 1e-3,
        "outer_views": "all",
        "augmentations": ("rot90", "rot180", "rot270"),
    }
    assert published.items() <= asdict(Ours()).items()


def test_a_student_sees_it_decoded_a_batch_at_a_time(toy_problem, monkeypatch):
    problem = toy_problem()
    data = TINY.decode(distil(replace(TINY, outer_steps=0), problem), problem.shape)
    asked = []

    def images(bases, index=None):
        asked.append(None if index is None else len(index))
        return plain(bases, index)

    plain = Bases.images
    monkeypatch.setattr(Bases, "images", images)
    student = problem.new_network(
        "convnet", data.targets.shape[2], torch.Generator(), widths=(4, 4)
    )
    loop = CheckpointedLoop(None, description="toy")
    recipe = Recipe(lr=0.1, weight_decay=0.0, batch_size=6)
    length = Length(steps=3)
    generator = torch.Generator().manual_seed(0)
    pretrain(student, data, length, recipe=recipe, generator=generator, checkpoint=loop)
    assert len(asked) == 3
    assert all(1 <= size <= 6 for size in asked)
