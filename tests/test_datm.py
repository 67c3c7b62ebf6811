import math
from dataclasses import fields, replace

import pytest
import torch

from benchmark.loop import CheckpointedLoop
from benchmark.methods import datm
from benchmark.methods._datm_recipes import PUBLISHED, Recipe, resolve
from benchmark.methods._experts import Experts
from benchmark.methods._soft_start import draw_correct, draw_real, mean_logits
from benchmark.methods._zca import Zca, affordable
from benchmark.methods.datm import Datm
from benchmark.spec import ImageShape, UsageError

SMALL = Datm(
    inner_steps=5,
    target_epochs=1,
    start_epochs=(0, 1, 2),
    expansion_steps=4,
    inner_batch=4,
    image_lr=1.0,
    logit_lr=0.5,
    lr_lr=1e-5,
    threshold=10.0,
    initial_images="correct",
    inner_widths=(8, 8),
    outer_steps=6,
    initial_lr=0.03,
    num_experts=2,
    expert_epochs=3,
    expert_lr=0.1,
    expert_batch=18,
)


class Killed(CheckpointedLoop):
    """A loop whose process dies when it logs outer step 3."""

    def log(self, step, **values):
        super().log(step, **values)
        if step == 3 and "matching_loss" in values:
            raise KeyboardInterrupt


def distil(method, problem, *, seed=0, loop=None):
    loop = loop or CheckpointedLoop(None, description="datm")
    stream = torch.Generator().manual_seed(seed)
    return method.distill(problem, generator=stream, checkpoint=loop)


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(name="problem")
def _problem(labelled_problem, tmp_path):
    """Three classes at two images each, with room for the experts."""
    return replace(labelled_problem(N=6), cache=tmp_path / "cache")


def test_what_is_stored_fits_and_decodes_to_pixels_with_soft_labels(problem):
    before = torch.get_rng_state()
    stored = distil(SMALL, problem)
    assert torch.equal(torch.get_rng_state(), before)
    decoded = SMALL.decode(stored, problem.shape)
    assert decoded.objective == "cross-entropy"
    assert torch.equal(decoded.images, stored["images"].clamp(0, 1))
    torch.testing.assert_close(decoded.targets[0], stored["logits"].softmax(1))
    assert decoded.own.recipe == {"lr": float(stored["learning_rate"]), "batch_size": 128}
    assert decoded.own.recipe["lr"] != pytest.approx(0.03)
    assert decoded.own.images is stored["images"]


@pytest.mark.parametrize("num", [None, 0, 2, 192])
def test_the_rest_of_the_budget_holds_components_of_the_whitening(problem, num):
    """Which its own evaluation applies to all images."""
    zca = Zca.fit(problem.images, eps=SMALL.zca_eps)
    plain = 6 * (192 + 3) + 1
    numbers = plain + (100 if num is None else 193 + 193 * num)
    d = -(-numbers // 6) - 192
    roomy = replace(problem, representations=lambda view: torch.zeros(60, d))
    stored = distil(SMALL, roomy)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    assert (shapes.pop("images"), shapes.pop("logits")) == ((6, 3, 8, 8), (6, 3))
    assert shapes.pop("learning_rate") == (1,)
    assert numbers - 193 < sum(tensor.numel() for tensor in stored.values()) <= roomy.num_floats
    whitening = SMALL.decode(stored, problem.shape).own.whitening
    if num is None:
        assert (shapes, whitening) == ({}, None)
        return
    assert shapes == {
        "whitening_mean": (3, 8, 8),
        "whitening_components": (num, 3, 8, 8),
        "whitening_scales": (num + 1,),
    }
    assert whitening is not None
    images = problem.images / 255
    error = (whitening(images) - zca.whiten(problem.images)).flatten(1)
    lost = zca.variances.flip(0)[num:]  # what the best single scale leaves of the other components
    exact = (lost + zca.eps) ** -0.5
    rest = (lost * exact).sum() / lost.sum().clamp_min(1e-30)
    expected = (lost * (rest - exact) ** 2).sum()
    n = len(images)
    assert float(error.square().sum() / (n - 1)) == pytest.approx(
        float(expected), abs=1e-6, rel=1e-3
    )
    other = (lost * (1.01 * rest - exact) ** 2).sum()
    assert other >= expected


def test_whitening_components_at_the_published_budgets():
    """CIFAR-100 with d = 512."""
    left = [n * (3072 + 512) - n * (3072 + 100) - 1 for n in (100, 1000, 5000)]
    assert [affordable(numbers, ImageShape(3, 32, 32)) for numbers in left] == [12, 133, 669]


def test_no_step_gives_real_pixels_that_the_experts_recognise(problem):
    stored = distil(replace(SMALL, outer_steps=0), problem)
    real = problem.images.flatten(1) / 255
    distance, rows = torch.cdist(stored["images"].flatten(1).double(), real.double()).min(1)
    assert distance.max() < 1e-5
    assert problem.labels[rows].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(rows.tolist())) == 6
    assert stored["logits"].argmax(1).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_matching_loss_falls(problem):
    loop = CheckpointedLoop(None, description="datm")
    method = replace(SMALL, outer_steps=24, start_epochs=(0, 1, 1), inner_batch=6)
    distil(method, problem, loop=loop)
    losses = [point["matching_loss"] for point in loop.history["outer steps"]]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert max(losses) < 1  # what weights that stay where they are would have


def test_steps_are_sgd_with_momentum_on_the_matching_gradient(problem, monkeypatch):
    """A plain twin of the outer loop: known gradients, momentum written out, skipped steps."""
    losses, ones, starts = [0.5, 2.0, 1.0], torch.ones(()), []

    def fake(distilled, *, start, target, **rest):
        starts.append((start.clone(), target.clone()))
        gradient = replace(
            distilled,
            images=torch.ones_like(distilled.images),
            logits=torch.ones_like(distilled.logits),
            lr=ones,
        )
        return torch.tensor(losses[len(starts) - 1]), gradient

    monkeypatch.setattr(datm, "match", fake)
    method = replace(SMALL, outer_steps=3, threshold=1.0)
    start = distil(replace(method, outer_steps=0), problem)
    end = distil(method, problem)
    moved = {"images": 1.0 * (1 + 1.5), "logits": 0.5 * (1 + 1.9), "learning_rate": 1e-5 * 2.5}
    zca = Zca.fit(problem.images, eps=0.1)
    whitened = [zca.whiten(stored["images"]) for stored in (start, end)]
    torch.testing.assert_close(whitened[0] - whitened[1], torch.full((6, 3, 8, 8), 2.5))
    for name in ("logits", "learning_rate"):
        expected = torch.full_like(start[name], moved[name])
        torch.testing.assert_close(start[name] - end[name], expected, rtol=1e-3, atol=1e-7)
    assert not any(torch.equal(start, target) for start, target in starts)


def test_a_killed_run_goes_on_to_the_same_set(problem, tmp_path):
    uninterrupted = distil(SMALL, problem)
    with pytest.raises(KeyboardInterrupt):
        folder = tmp_path / "loop"
        distil(SMALL, problem, loop=Killed(folder, description="datm", save_every_seconds=0.0))
    resumed = distil(SMALL, problem, loop=CheckpointedLoop(folder, description="datm"))
    assert same(resumed, uninterrupted)


def test_seeds_share_the_experts_that_the_data_and_settings_determine(problem, monkeypatch):
    trained, epoch = [], Experts._epoch

    def counted(self, weights, stream):
        trained.append(1)
        return epoch(self, weights, stream)

    monkeypatch.setattr(Experts, "_epoch", counted)
    method = replace(SMALL, outer_steps=1)
    first = distil(method, problem)
    assert len(trained) == 6
    assert not same(first, distil(method, problem, seed=1))
    assert len(trained) == 6
    distil(replace(method, expert_epochs=4), problem)
    assert len(trained) == 6 + 2
    assert same(first, distil(method, replace(problem, cache=None)))
    assert len(trained) == 6 + 2 + 6
    distil(replace(method, expert_rho=0.02), problem)
    assert len(trained) == 6 + 2 + 6 + 6


def test_networks_see_whitened_images_as_they_are(problem, monkeypatch):
    seen = []

    def start(self, experts, recipe, **rest):
        seen.append(experts)
        return Datm._start(self, experts, recipe, **rest)

    class Watched(Datm):
        _start = start

    distil(Watched(**{f.name: getattr(SMALL, f.name) for f in fields(SMALL)}), problem)
    (experts,) = seen
    torch.testing.assert_close(
        experts.images, Zca.fit(problem.images, eps=0.1).whiten(problem.images)
    )
    network = experts.network.network
    assert not network.mean.any()
    assert (network.std == 1).all()


@pytest.mark.parametrize(
    ("N", "changes", "message"),
    [
        (2, {}, "datm at N=2: less than one image for each of 3 classes"),
        (7, {}, "datm at N=7: .* nearest budgets that give it are 6 and 9"),
        (
            6,
            {"max_expert_gib": 1e-6},
            "2 experts x 4 snapshots x 939 weights in fp32 take 2.8e-05",
        ),
        (6, {"start_epochs": (0, 1, 4)}, "expert_epochs=3: experts are matched up to epoch 4"),
        (6, {"start_epochs": (1, 1, 2)}, "start_epochs=.* expected three epochs"),
        (6, {"inner_batch": 0}, "inner_batch=0: expected 1 or more"),
        (6, {"num_experts": 0}, "num_experts=0: expected 1 or more"),
        (6, {"keep_every": 0}, "keep_every=0: expected 1 or more"),
        (6, {"inner_norm": None}, "running statistics"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(labelled_problem, N, changes, message):
    method = replace(SMALL, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        distil(method, labelled_problem(N=N))
    assert "\n" not in str(caught.value)


def test_more_labels_than_the_budget_has_room_for_are_refused(labelled_problem):
    problem = replace(labelled_problem(N=6), representations=lambda view: torch.zeros(36, 3))
    with pytest.raises(UsageError, match=r"are 1171 numbers, but the budget is 1170"):
        distil(SMALL, problem)


NOTHING = {field.name: None for field in fields(Recipe)}


def test_unpublished_settings_are_refused_with_the_nearest_published():
    with pytest.raises(UsageError, match=r"20 classes at 9 images each; .* set datm.recipe=10,10"):
        resolve((20, 9), NOTHING)
    with pytest.raises(
        UsageError, match=r"recipe=100,50 to use it, or set all of inner_steps, .*inner_widths$"
    ):
        resolve((100, 40), NOTHING | {"threshold": 1.0})
    assert resolve((100, 50), NOTHING) == PUBLISHED[100, 50]
    changed = resolve((100, 50), NOTHING | {"inner_steps": 7})
    assert changed == replace(PUBLISHED[100, 50], inner_steps=7)
    assert resolve((20, 9), NOTHING, wanted=(100, 10)) == PUBLISHED[100, 10]
    with pytest.raises(UsageError, match=r"datm.recipe=0,7: expected one of 10,1; 10,10; "):
        resolve((20, 9), NOTHING, wanted=(0, 7))


@pytest.mark.parametrize("known", sorted(PUBLISHED))
def test_the_defaults_reach_every_published_recipe(known):
    assert Datm()._resolve(*known) == PUBLISHED[known]


def test_start_epochs_grow_from_easy_to_hard():
    recipe = PUBLISHED[100, 10]
    for step in (0, 99, 100, 1999, 2000, 9999):
        expected = min(50, 30 + math.floor((50 - 30) * step / 2000))
        assert recipe.max_start_epoch(step) == expected
    assert {PUBLISHED[100, 50].max_start_epoch(step) for step in (0, 5, 9999)} == {70}


def test_starts_are_drawn_below_the_current_bound(problem, monkeypatch):
    asked = []

    class Spied(Experts):
        def weights(self, expert, epoch):
            asked.append((expert, epoch))
            return super().weights(expert, epoch)

    monkeypatch.setattr(datm, "Experts", Spied)
    distil(replace(SMALL, outer_steps=12, initial_images="real"), problem)
    pairs = list(zip(asked[1::2], asked[2::2], strict=True))  # the first is for the labels
    assert len(pairs) == 12
    assert all(end == (expert, epoch + 1) for (expert, epoch), end in pairs)
    epochs = [epoch for (_, epoch), _ in pairs]
    assert set(epochs[:4]) == {0}
    assert set(epochs) == {0, 1}
    turns = [expert for (expert, _), _ in pairs]
    assert all({a, b} == {0, 1} for a, b in zip(turns[::2], turns[1::2], strict=True))


def expert(*predicted, k=3, scale=1.0):
    table = scale * torch.eye(k)[torch.tensor(predicted)]
    return lambda rows: table[rows]


def test_images_come_from_the_first_expert_that_recognises_enough():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    first = expert(0, 0, 2, 0, 1, 2, 1, 0, 1)  # right about 0, 3 | 4 | 2, 5
    second = expert(1, 1, 0, 1, 1, 0, 0, 0, 2)  # right about 6 | 1, 4 | 8
    stream = torch.Generator().manual_seed(0)
    rows = draw_correct(labels, [first, second], k=3, ipc=2, generator=stream)
    assert [sorted(pair.tolist()) for pair in rows.split(2)] == [[0, 3], [1, 4], [2, 5]]
    rows = draw_correct(labels, [first], k=3, ipc=3, generator=stream)
    assert [sorted(three.tolist()) for three in rows.split(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_real_images_are_drawn_from_all_of_their_class():
    labels = torch.arange(3).repeat_interleave(4)
    stream = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_real(labels, k=3, ipc=1, generator=stream) for _ in range(60)])
    assert (labels[drawn] == torch.arange(3)).all()
    assert set(drawn.flatten().tolist()) == set(range(12))


def test_labels_average_the_experts_that_are_right():
    rows, labels = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    experts = [expert(0, 1, 0), expert(0, 2, 1, scale=3.0)]
    expected = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0.5, 1.5, 0]])  # nobody knows the last
    torch.testing.assert_close(mean_logits(rows, labels, experts), expected)
