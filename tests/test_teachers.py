"""How teachers are pretrained: the loss, the optimizer, the schedule, and exact resumption."""

import math
import shutil
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmark import plugins
from benchmark.augment import RandomAugmentation
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.spec import UsageError
from benchmark.teachers._fit import new_optimizer, new_schedule
from benchmark.teachers.barlow_twins import BarlowTwins, barlow_twins_loss
from benchmark.teachers.supervised import Supervised

TINY = {
    "barlow-twins": BarlowTwins(
        epochs=3,
        batch_size=32,
        optimizer="adamw",
        lr=3e-3,
        warmup_epochs=1,
        projector_hidden=16,
        projector_output=8,
        probe_every=1,
    ),
    "supervised": Supervised(epochs=3, batch_size=32, max_shift=1, probe_every=1),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_network(num_outputs=4):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6)
        )
        return Network(backbone, 6, num_outputs, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))


@pytest.fixture
def data():
    """Four classes, each a bright quarter of a noisy image."""
    labels = torch.arange(96) % 4
    images = torch.randint(0, 100, (96, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[:, top : top + 4, left : left + 4] += 120
    return images, labels


def pretrain(kind, network, data, checkpoint, probe=lambda: 0.0):
    images, labels = data
    return kind.pretrain(
        network,
        images=images,
        labels=None if kind.supervision == "none" else labels,
        probe=probe,
        generator=generator(1),
        checkpoint=checkpoint,
    )


def test_every_kind_of_teacher_is_tested_here():
    assert list(TINY) == plugins.names("teachers")
    assert all(isinstance(TINY[name], plugins.load("teachers", name)) for name in TINY)


def test_loss_is_that_of_the_correlation_matrix():
    rng = np.random.default_rng(0)
    a = rng.normal(3, 2, (50, 4))
    b = a + rng.normal(0, 1, (50, 4))
    correlation = np.corrcoef(a, b, rowvar=False)[:4, 4:]
    weights = np.full((4, 4), 0.0051)
    np.fill_diagonal(weights, 1.0)
    expected = (weights * (correlation - np.eye(4)) ** 2).sum()
    loss = barlow_twins_loss(torch.tensor(a), torch.tensor(b), 0.0051)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_lars_is_the_published_update():
    recipe = BarlowTwins()
    weight, bias = torch.randn(5, 3, generator=generator()), torch.randn(5, generator=generator())
    layer = nn.Linear(3, 5)
    layer.load_state_dict({"weight": weight, "bias": bias})
    optimizer = new_optimizer(recipe, layer)
    w, v = weight.double().numpy(), bias.double().numpy()
    momentum_w, momentum_v = np.zeros_like(w), np.zeros_like(v)
    for size in (1e-4, 10.0, 0.1):  # the smallest gradient meets the clip
        layer.weight.grad = size * torch.randn(5, 3, generator=generator(1))
        layer.bias.grad = size * torch.randn(5, generator=generator(2))
        optimizer.step()
        g = layer.weight.grad.double().numpy()
        norm = np.linalg.norm(w)
        trust = 0.02 * norm / (np.linalg.norm(g) + 1e-4 * norm)
        momentum_w = 0.9 * momentum_w + min(trust / 0.3, 1) * (g + 1e-4 * w)
        momentum_v = 0.9 * momentum_v + layer.bias.grad.double().numpy()
        w, v = w - 0.3 * momentum_w, v - 0.3 * momentum_v
    np.testing.assert_allclose(layer.weight.detach(), w, rtol=1e-5)
    np.testing.assert_allclose(layer.bias.detach(), v, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_only_weights_decay(optimizer):
    layer = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    before = [p.detach().clone() for p in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    new_optimizer(replace(BarlowTwins(), optimizer=optimizer, weight_decay=0.5), layer).step()
    for old, new in zip(before, layer.parameters(), strict=True):
        assert torch.equal(old, new) == (old.ndim == 1)
        assert new.norm() <= old.norm()


def test_schedule_rises_linearly_and_falls_as_a_cosine():
    recipe = BarlowTwins(epochs=10, warmup_epochs=4, lr=0.3)
    optimizer = new_optimizer(recipe, nn.Linear(2, 2))
    schedule = new_schedule(recipe, optimizer, per_epoch=5)
    rates = []
    for step in range(50):
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"]
        rates.append(optimizer.param_groups[0]["lr"])
    rising = [3e-5 + (0.3 - 3e-5) * step / 20 for step in range(20)]
    falling = [0.15 * (1 + math.cos(math.pi * step / 30)) for step in range(30)]
    assert rates == pytest.approx(rising + falling)


@pytest.mark.parametrize("name", TINY)
def test_killed_and_resumed_equals_uninterrupted(name, data, tmp_path):
    class Killed(CheckpointedLoop):
        def log(self, step, **values):
            super().log(step, **values)
            if step == 4:  # in the middle of the second of three epochs of three steps
                raise KeyboardInterrupt

    def run(loop):
        network = new_network()
        steps = pretrain(TINY[name], network, data, loop)
        return network.state_dict(), steps, loop.history["pretraining"]

    whole = run(CheckpointedLoop(None, description="whole"))
    with pytest.raises(KeyboardInterrupt):
        run(Killed(tmp_path, description="killed", save_every_seconds=-1.0))
    resumed = run(CheckpointedLoop(tmp_path, description="resumed"))
    finished = run(CheckpointedLoop(tmp_path, description="finished"))
    assert whole[1:] == resumed[1:] == finished[1:]
    for part in whole[0]:
        assert torch.equal(whole[0][part], resumed[0][part])
        assert torch.equal(whole[0][part], finished[0][part])


@pytest.mark.parametrize("name", TINY)
def test_randomness_comes_from_the_generator_alone(name, data):
    network, again = new_network(), new_network()
    state = torch.get_rng_state()
    pretrain(TINY[name], network, data, CheckpointedLoop(None, description="first"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    pretrain(TINY[name], again, data, CheckpointedLoop(None, description="second"))
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", TINY)
def test_pretraining_lowers_its_loss_and_logs_what_the_probe_says(name, data):
    answers = iter(range(100))
    loop = CheckpointedLoop(None, description=name)
    pretrain(
        replace(TINY[name], epochs=20), new_network(), data, loop, lambda: float(next(answers))
    )
    history = loop.history["pretraining"]
    losses = [entry["loss"] for entry in history]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert [entry["held_out"] for entry in history] == [step // 3 for step in range(60)]


@pytest.mark.parametrize("name", TINY)
def test_passes_of_the_backbone_keep_to_the_memory_budget(name, data):
    network, passed = new_network(), []

    def chunks(run, backbone, images, *, precision):
        passed.append((backbone, len(images)))
        return run(backbone, images)

    network.chunks = chunks
    kind = replace(TINY[name], epochs=1, warmup_epochs=0)
    steps = pretrain(kind, network, data, CheckpointedLoop(None, description=name))
    each = 2 if name == "barlow-twins" else 1  # augmentations
    assert passed == [(network.backbone, 32)] * each * steps


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.parametrize("name", TINY)
def test_compiled_is_the_same_to_rounding(name, data):
    plain, compiled = (
        replace(TINY[name], optimizer="sgd", lr=0.01, compile=compile) for compile in (False, True)
    )
    networks = new_network(), new_network()
    for kind, network in zip((plain, compiled), networks, strict=True):
        pretrain(kind, network, data, CheckpointedLoop(None, description=name))
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_one_line_says_so(data, monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    kind = replace(TINY["supervised"], compile=True)
    with pytest.raises(UsageError, match=r"compile=true: .*no compiler; expected false here"):
        pretrain(kind, new_network(), data, CheckpointedLoop(None, description="none"))


def test_the_head_is_no_part_of_barlow_twins(data):
    network = new_network()
    head = network.head.weight.detach().clone()
    pretrain(TINY["barlow-twins"], network, data, CheckpointedLoop(None, description="head"))
    assert torch.equal(network.head.weight, head)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("supervised", {"batch_size": 1}, "batch_size=1: expected 2 or more"),
        ("supervised", {"epochs": 0}, "epochs=0: expected 1 or more"),
        ("supervised", {"warmup_epochs": 3}, "warmup_epochs=3: expected fewer than epochs=3"),
        ("supervised", {"probe_every": 0}, "probe_every=0: expected 1 or more"),
        ("supervised", {"lr": 0.0}, "lr=0.0: expected a number above 0"),
        ("supervised", {"weight_decay": -1.0}, "weight_decay=-1.0: expected 0 or more"),
        ("supervised", {"max_shift": -1}, "max_shift=-1: expected 0 or more"),
        ("barlow-twins", {"batch_size": 0}, "batch_size=0: expected 2 or more"),
        ("barlow-twins", {"projector_hidden": -1}, "projector_hidden=-1: expected 1 or more"),
        ("barlow-twins", {"projector_output": 0}, "projector_output=0: expected 1 or more"),
        ("barlow-twins", {"crop_scale": (0.5, 0.1)}, "crop_scale=.*: expected two numbers"),
    ],
)
def test_impossible_settings_are_refused_at_once(name, changes, message):
    with pytest.raises(UsageError, match=message):
        replace(TINY[name], **changes)


def test_a_batch_of_more_than_all_images_is_refused(data):
    kind = replace(TINY["supervised"], batch_size=97)
    with pytest.raises(UsageError, match=r"teacher\.batch_size=97: expected 2 to 96, the number"):
        pretrain(kind, new_network(), data, CheckpointedLoop(None, description="refused"))


def test_every_setting_of_the_augmentations_reaches_them():
    settings = {
        "crop_scale": (0.3, 0.9),
        **{name: 0.01 * i for i, name in enumerate(("brightness", "contrast", "saturation"), 1)},
        **{name: 0.01 * i for i, name in enumerate(("hue", "gamma", "grey"), 4)},
    }
    shared = {f.name for f in fields(RandomAugmentation)} & {f.name for f in fields(BarlowTwins)}
    assert settings.keys() == shared - {"solarise"}
    wanted = RandomAugmentation(**settings, solarise=0.5)
    assert BarlowTwins(**settings)._augmentation(0.5) == wanted
