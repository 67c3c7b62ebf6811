import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from benchmark import pretrain as module
from benchmark import settings, views
from benchmark.differentiable_augmentation import draw
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.network_factory import NetworkFactory
from benchmark.pretrain import RECIPES, Length, Recipe, pretrain
from benchmark.spec import ImageShape, TrainingSet, UsageError
from tests.mortal import DeathError, Mortal

ROTATIONS = ("identity", "rot90", "rot180", "rot270")
MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
PLAIN = Recipe(lr=0.1, weight_decay=1e-3, batch_size=8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def training_set(m=5, names=ROTATIONS, outputs=3, side=8, objective="mse", seed=1):
    stream = generator(seed)
    targets = torch.randn(len(names), m, outputs, generator=stream)
    return TrainingSet(
        images=torch.randint(256, (m, 3, side, side), generator=stream, dtype=torch.uint8),
        views=names,
        targets=targets.softmax(2) if objective == "cross-entropy" else targets,
        objective=objective,
    )


def convnet(outputs=3, side=8):
    factory = NetworkFactory(shape=ImageShape(3, side, side), mean=MEAN, std=STD)
    return factory("convnet", outputs, generator(7), widths=(4, 6))


def linear(data):
    """A student without hidden layers: outputs are affine in the pixels."""
    pixels = data.images[0].numel()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return Network(nn.Flatten(), pixels, data.targets.shape[2], mean=MEAN, std=STD)


def train(student, data, length, recipe=PLAIN, loop=None, seed=2):
    loop = loop or CheckpointedLoop(None, description="toy")
    return pretrain(
        student, data, length, recipe=recipe, generator=generator(seed), checkpoint=loop
    )


def weights(student):
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def seen(monkeypatch):
    """Note the pixels and targets of every batch that a `Spy` is trained on."""
    batches = []

    def loss(outputs, targets):
        batches.append((outputs.detach().clone(), targets.clone()))
        return outputs.mean()

    monkeypatch.setitem(module._LOSSES, "mse", loss)
    return batches


class Spy(Network):
    """A student whose output is its input, or that normalised."""

    def __init__(self, data, *, normalises=False):
        super().__init__(nn.Linear(1, 1), 1, 1, mean=MEAN, std=STD)
        self.head = nn.Identity()
        self.normalises = normalises

    def normalise(self, images):
        return super().normalise(images) if self.normalises else images

    def features_of_normalised(self, images):
        return images + 0 * self.backbone.bias


def test_epochs_count_passes_and_steps_count_steps():
    data = training_set(m=5)  # 20 pairs: batches of 7, 7 and 6
    assert train(linear(data), data, Length(epochs=4)) == 12
    assert train(linear(data), data, Length(steps=5)) == 5
    single = training_set(m=5, names=("identity",))
    assert train(linear(single), single, Length(epochs=4)) == 4


def test_an_epoch_uses_every_pair_once_in_equal_batches_each_with_its_own_target(seen):
    data = training_set(m=5)
    train(Spy(data), data, Length(epochs=3))
    assert [len(images) for images, _ in seen] == [7, 7, 6] * 3
    pairs = {
        (view, image): views.apply(name, data.images[image : image + 1] / 255)[0]
        for view, name in enumerate(data.views)
        for image in range(5)
    }
    orders = []
    for epoch in range(3):
        images, targets = (torch.cat(parts) for parts in zip(*seen[3 * epoch :][:3], strict=True))
        order = []
        for image, target in zip(images, targets, strict=True):
            (pair,) = [pair for pair, pixels in pairs.items() if torch.equal(pixels, image)]
            assert torch.equal(target, data.targets[pair])
            order.append(pair)
        assert sorted(order) == sorted(pairs)
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]


def test_a_student_learns_the_target_of_each_view():
    """Targets that are affine in the turned pixels can be met, but only in the right pairs."""
    data = training_set(m=4, side=4)
    truth = torch.randn(48, 3, generator=generator(5))
    turned = views.apply_all(ROTATIONS, data.images / 255)
    normalised = (turned - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    targets = (normalised.flatten(1) @ truth).view(4, 4, 3)

    def error(names):
        paired = TrainingSet(images=data.images, views=names, targets=targets, objective="mse")
        student = linear(paired)
        train(student, paired, Length(steps=80), Recipe(lr=0.05, weight_decay=0.0, batch_size=16))
        return (student(turned) - targets.flatten(0, 1)).square().mean()

    assert error(ROTATIONS) < 0.1 < 10 < error(ROTATIONS[::-1])


def test_a_plain_loop_gives_the_same_weights():
    data, recipe = training_set(m=5), Recipe(lr=0.1, weight_decay=1e-3, batch_size=8)
    student = convnet()
    train(student, data, Length(epochs=3), recipe, seed=2)

    twin, stream = convnet().train(), generator(2)
    images = torch.cat([views.apply(name, data.images / 255) for name in data.views])
    targets = data.targets.reshape(20, 3)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(3):
        for batch in np.array_split(torch.randperm(20, generator=stream).numpy(), 3):
            error = (twin(images[batch]) - targets[batch]).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
    expected, actual = twin.state_dict(), student.state_dict()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], msg=name)


@pytest.mark.parametrize("steps", [8, 7])
def test_at_half_time_the_rate_falls_to_a_tenth_and_momentum_is_forgotten(steps):
    data = training_set(m=6, names=("identity",), objective="cross-entropy", side=4)
    recipe = Recipe(lr=0.5, weight_decay=1e-2, batch_size=6, decay_at=0.5)
    student = linear(data)
    weight, bias = (p.detach().double().clone() for p in student.head.parameters())
    train(student, data, Length(steps=steps), recipe)

    x = data.images.double() / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    x, y = x.flatten(1), data.targets[0].double()
    rate, speed = 0.5, [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step in range(steps):
        if step == 4:
            rate, speed = 0.05, [torch.zeros_like(weight), torch.zeros_like(bias)]
        residual = ((x @ weight.T + bias).softmax(1) - y) / 6  # of soft labels' cross-entropy
        gradients = [residual.T @ x + 1e-2 * weight, residual.sum(0) + 1e-2 * bias]
        speed = [0.9 * s + g for s, g in zip(speed, gradients, strict=True)]
        weight, bias = weight - rate * speed[0], bias - rate * speed[1]
    torch.testing.assert_close(student.head.weight.double(), weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(student.head.bias.double(), bias, atol=1e-5, rtol=1e-4)


def test_without_decay_the_rate_stays(monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a)),
    )
    data = training_set()
    train(linear(data), data, Length(steps=4))
    assert rates == [0.1] * 4


def test_augmentation_is_drawn_per_batch_and_works_on_normalised_pixels(seen):
    data = training_set(m=6, names=("identity",))
    recipe = Recipe(lr=0.1, weight_decay=0.0, batch_size=3, augment=True)
    train(Spy(data, normalises=True), data, Length(epochs=4), recipe, seed=2)

    stream, order = generator(2), None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    changed = 0
    for step, (images, targets) in enumerate(seen):
        if step % 2 == 0:
            order = torch.randperm(6, generator=stream)
        batch = order[3 * (step % 2) :][:3]
        plain = (data.images[batch] / 255 - mean) / std
        expected = draw(stream, num=3)(plain)
        torch.testing.assert_close(images, expected)
        assert torch.equal(targets, data.targets[0, batch])
        changed += not torch.allclose(images, plain, atol=1e-3)
    assert changed > len(seen) / 2


def test_the_published_recipes():
    assert not RECIPES["mse"].augment
    assert RECIPES["cross-entropy"].augment


def test_bytes_and_floats_are_the_same_images():
    data = training_set()
    floats = TrainingSet(
        images=data.images / 255, views=data.views, targets=data.targets, objective="mse"
    )
    one, two = convnet(), convnet()
    train(one, data, Length(steps=5))
    train(two, floats, Length(steps=5))
    assert same(weights(one), weights(two))


def test_one_image_is_enough():
    data = training_set(m=1, names=("identity",))
    student = convnet()
    before = weights(student)
    assert train(student, data, Length(steps=3)) == 3
    assert not same(before, weights(student))


@pytest.mark.parametrize(
    ("names", "images", "targets"),
    [
        (ROTATIONS, (5, 3, 8, 8), (3, 5, 2)),
        (("identity",), (0, 3, 8, 8), (1, 0, 2)),
        (("identity",), (5, 3, 8, 8), (5, 2)),
        (("identity",), (5, 8, 8), (1, 5, 2)),
        (("identity",), (5, 3, 8, 8), (1, 5, 0)),
    ],
    ids=["views", "nothing", "no view", "no channel", "no target"],
)
def test_data_that_does_not_fit_together_is_refused(names, images, targets):
    data = {"images": torch.zeros(images), "views": names, "targets": torch.zeros(targets)}
    said = f"images {images} and targets {targets} under {len(names)} views: expected (m, c, h, w)"
    with pytest.raises(UsageError, match=re.escape(said)):
        TrainingSet(objective="mse", **data)


@pytest.mark.parametrize("targets", [[0.5, 0.6], [1.5, -0.5], [0.0, math.nan]])
def test_targets_of_classes_are_probabilities(targets):
    data = {"images": torch.zeros(1, 3, 8, 8), "views": ("identity",)}
    with pytest.raises(UsageError, match=r"^targets for cross-entropy: expected class prob"):
        TrainingSet(objective="cross-entropy", targets=torch.tensor([[targets]]), **data)


def test_an_unknown_objective_is_refused():
    data = training_set()
    object.__setattr__(data, "objective", "hinge")  # the tests' type checks refuse it earlier
    with pytest.raises(UsageError, match=r"^unknown objective 'hinge': .*mse, cross-entropy"):
        data.__post_init__()


def test_the_seed_decides_every_bit_and_nothing_else_is_drawn_from():
    data, before = training_set(), torch.default_generator.get_state()
    students = [convnet() for _ in range(3)]
    for student, seed in zip(students, (1, 1, 2), strict=True):
        train(student, data, Length(epochs=2), seed=seed)
        assert not student.training
    one, two, other = map(weights, students)
    assert same(one, two)
    assert not same(one, other)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_killed_again_and_again_a_student_becomes_the_same(tmp_path, saved_at_every_step):
    data = training_set(m=5, objective="cross-entropy")
    recipe = Recipe(lr=0.1, weight_decay=1e-3, batch_size=8, decay_at=0.5, augment=True)
    whole = convnet()
    train(whole, data, Length(steps=8), recipe)
    for death in (0, 1, 3, 4, 5):  # an epoch has 3 steps, and the rate falls at step 4
        with pytest.raises(DeathError):
            train(
                convnet(),
                data,
                Length(steps=8),
                recipe,
                loop=Mortal(tmp_path, ("pretraining", death)),
            )
    resumed = convnet()
    train(resumed, data, Length(steps=8), recipe, loop=Mortal(tmp_path))
    assert same(weights(whole), weights(resumed))
    assert not resumed.training


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": "0"},
        {"lr": "0"},
        {"lr": "-1"},
        {"momentum": "1"},
        {"weight_decay": "-1e-3"},
        {"decay_at": "2"},
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_by_name(change):
    ((name, value),) = change.items()
    with pytest.raises(UsageError, match=f"^mse: .*{name}={float(value):g}".replace("+", "")) as e:
        settings.replace("mse", RECIPES["mse"], change)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("both", [{}, {"epochs": 1, "steps": 1}])
def test_a_length_is_in_epochs_or_in_steps(both):
    with pytest.raises(UsageError, match="expected either epochs or steps"):
        Length(**both)
