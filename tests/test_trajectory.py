import json
import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from weakref import WeakSet

import pytest
import torch
from safetensors import safe_open
from torch import nn

from benchmark.differentiable_augmentation import OPERATIONS, Augmentation
from benchmark.methods._trajectory import FlatNetwork, SoftLabelLoss, SoftSet, match
from benchmark.network import Network
from benchmark.spec import UsageError

RECORDED = Path(__file__).parent / "fixtures" / "datm.safetensors"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat_network(*, widths=(6, 6, 6), k=5, side=16, norm=lambda c: nn.GroupNorm(c, c)):
    layers = []
    for c_in, c_out in zip((3, *widths), widths, strict=False):
        conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        layers += [conv, norm(c_out), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
    features = widths[-1] * (side // 2 ** len(widths)) ** 2
    backbone = nn.Sequential(*layers, nn.Flatten())
    network = Network(backbone, features, k, mean=(0.0,) * 3, std=(1.0,) * 3).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator(len(weight))) / 5)
    return FlatNetwork(network)


def unrolled(distilled, *, inner_loss, start, target, num_steps):
    """The plain twin: one graph of all steps, and torch's automatic differentiation."""
    images, logits, lr = (
        tensor.clone().requires_grad_()
        for tensor in (distilled.images, distilled.logits, distilled.lr)
    )
    weights = start.clone().requires_grad_()
    for step in range(num_steps):
        loss = inner_loss(weights, images, logits, step)
        (slope,) = torch.autograd.grad(loss, weights, create_graph=True)
        weights = weights - lr * slope
    loss = ((weights - target) ** 2).sum() / ((start - target) ** 2).sum()
    loss.backward()
    return loss.detach(), SoftSet(images=images.grad, logits=logits.grad, lr=lr.grad)


@pytest.fixture(name="case")
def _case():
    """Seven augmented steps on batches of at most four of six images, in double precision."""
    network, stream = flat_network(), generator()
    start = network.weights
    distilled = SoftSet(
        images=torch.randn(6, 3, 16, 16, generator=stream, dtype=torch.float64),
        logits=torch.randn(6, 5, generator=stream, dtype=torch.float64),
        lr=torch.tensor(0.05, dtype=torch.float64),
    )
    noise = torch.randn(start.shape, generator=stream, dtype=torch.float64)
    return distilled, {
        "inner_loss": SoftLabelLoss.draw(network, 4, m=6, num_steps=7, generator=stream),
        "start": start,
        "target": start + 0.02 * noise,
        "num_steps": 7,
    }


def assert_same(actual, expected, *, rtol=1e-10):
    (loss, gradient), (expected_loss, expected_gradient) = actual, expected
    torch.testing.assert_close(loss, expected_loss, rtol=rtol, atol=0)
    for part in ("images", "logits", "lr"):
        ours, theirs = getattr(gradient, part), getattr(expected_gradient, part)
        assert (ours - theirs).norm() <= rtol * theirs.norm() > 0, part


@pytest.mark.parametrize("keep_every", [None, 1, 2, 100])
def test_the_gradient_is_that_of_one_graph_of_all_steps(case, keep_every):
    distilled, arguments = case
    assert_same(
        match(distilled, keep_every=keep_every, **arguments), unrolled(distilled, **arguments)
    )


def test_one_step_needs_no_segments(case):
    distilled, arguments = case
    arguments["num_steps"] = 1
    assert_same(match(distilled, **arguments), unrolled(distilled, **arguments))


@pytest.mark.parametrize("part", ["images", "logits", "lr"])
def test_the_gradient_predicts_small_changes_of_the_loss(case, part):
    distilled, arguments = case
    _, gradient = match(distilled, **arguments)
    value = getattr(distilled, part)
    direction = torch.randn(value.shape, generator=generator(3), dtype=torch.float64)
    size = 1e-5
    above, _ = match(replace(distilled, **{part: value + size * direction}), **arguments)
    below, _ = match(replace(distilled, **{part: value - size * direction}), **arguments)
    slope = (getattr(gradient, part) * direction).sum()
    torch.testing.assert_close((above - below) / (2 * size), slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", ["", "augmented."])
def test_loss_and_gradient_are_the_released_codes(case):
    """Without augmentation, and with one of its own for each image of each inner step."""
    with safe_open(RECORDED, framework="pt") as file:
        recorded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layout = json.loads(file.metadata()["weights"].partition(": ")[2])
    network = flat_network()
    assert [tuple(shape) for _, shape in layout] == list(network.shapes.values())
    rows = [batch[batch >= 0] for batch in recorded[f"{case}batches"]]
    augmentations = [Augmentation(operation=None, uniform=torch.zeros(1, 3).double())] * len(rows)
    if case:
        augmentations = [
            Augmentation(operation=OPERATIONS[operation], uniform=uniform[: len(batch)])
            for operation, uniform, batch in zip(
                recorded["augmented.operations"], recorded["augmented.uniform"], rows, strict=True
            )
        ]
        assert len({augment.operation for augment in augmentations}) == 5  # flip was not drawn
    actual = match(
        SoftSet(images=recorded["images"], logits=recorded["logits"], lr=recorded["lr"].squeeze()),
        inner_loss=SoftLabelLoss(
            network=network, batches=list(zip(rows, augmentations, strict=True))
        ),
        start=recorded["start"],
        target=recorded["target"],
        num_steps=len(rows),
    )
    expected = SoftSet(
        images=recorded[f"{case}images_gradient"],
        logits=recorded[f"{case}logits_gradient"],
        lr=recorded[f"{case}lr_gradient"].squeeze(),
    )
    assert_same(actual, (recorded[f"{case}loss"].squeeze(), expected), rtol=1e-8)


class Meter:
    """Most numbers that the graphs of automatic differentiation keep alive at once."""

    class Box:
        def __init__(self, tensor):
            self.tensor = tensor

    def __init__(self):
        self.boxes, self.peak = WeakSet(), 0

    def pack(self, tensor):
        box = self.Box(tensor)
        self.boxes.add(box)
        self.peak = max(self.peak, sum(kept.tensor.numel() for kept in self.boxes))
        return box

    def measure(self, function, *args, **kwargs):
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda box: box.tensor):
            function(*args, **kwargs)
        return self.peak


def toy_loss(weights, images, logits, step):
    return ((weights * images.sum()).sin() * logits.sum()).sum()


def toy_case(num_steps):
    ones = torch.ones(1, dtype=torch.float64)
    distilled = SoftSet(images=ones.view(1, 1, 1, 1), logits=ones.view(1, 1), lr=ones[0])
    start = torch.linspace(0, 1, 50, dtype=torch.float64)
    rest = {"inner_loss": toy_loss, "start": start, "target": 1 - start, "num_steps": num_steps}
    return distilled, rest


def test_the_graphs_held_are_those_of_one_segment():
    def peak(function, num_steps, **options):
        distilled, rest = toy_case(num_steps)
        return Meter().measure(function, distilled, **rest, **options)

    assert peak(match, 64, keep_every=1) == peak(match, 4, keep_every=1)
    assert (
        peak(match, 64)
        == peak(match, 64, keep_every=16)
        == pytest.approx(2 * peak(match, 64, keep_every=8), rel=0.2)
    )
    assert peak(match, 64, keep_every=8) == pytest.approx(
        8 * peak(match, 64, keep_every=1), rel=0.2
    )
    each = peak(match, 64) / math.sqrt(64)
    for num_steps in (16, 30, 36, 100, 144, 256, 400):
        assert peak(match, num_steps) < 1.1 * each * math.ceil(math.sqrt(num_steps))
    assert peak(unrolled, 64) > 10 * peak(unrolled, 4)


@pytest.mark.parametrize(
    ("num_steps", "keep_every", "losses"),
    [(16, None, 24), (16, 4, 28), (16, 1, 31), (16, 16, 16), (10, 4, 16)],
)
def test_all_segments_but_the_last_are_gone_through_twice(num_steps, keep_every, losses):
    distilled, rest = toy_case(num_steps)
    seen = []

    def counted(weights, images, logits, step):
        seen.append(step)
        return toy_loss(weights, images, logits, step)

    match(distilled, **{**rest, "inner_loss": counted}, keep_every=keep_every)
    assert len(seen) == losses


def test_running_statistics_are_refused():
    with pytest.raises(UsageError, match="running statistics"):
        flat_network(norm=nn.BatchNorm2d)


def test_every_image_is_used_before_any_is_used_again():
    loss = SoftLabelLoss.draw(flat_network(), 4, m=10, num_steps=7, generator=generator())
    rows = [batch.tolist() for batch, _ in loss.batches]
    assert [len(batch) for batch in rows] == [4, 4, 2, 4, 4, 2, 4]
    for epoch in (rows[:3], rows[3:6]):
        assert sorted(chain(*epoch)) == list(range(10))
    assert rows[:3] != rows[3:6]
