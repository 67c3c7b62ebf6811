import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from scipy.spatial.distance import cosine

from benchmark.differentiable_augmentation import Augmentation
from benchmark.methods._gradient_matching import ClassMatching, class_gradient, distance
from benchmark.network import Network
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape

RECORDED = Path(__file__).parent / "fixtures" / "dsa.safetensors"
CLASS = torch.tensor(2)


@pytest.fixture(scope="module")
def recorded():
    with safe_open(RECORDED, "pt") as file:
        assert "53f63a6" in json.loads(file.metadata()["provenance"])["repository"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def network_of(recorded) -> Network:
    factory = NetworkFactory(shape=ImageShape(3, 16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    generator = torch.Generator().manual_seed(0)
    network = factory("convnet", 4, generator, widths=(6, 6, 6), norm="instance").double()
    weights = [recorded[name] for name in sorted(recorded) if name.startswith("weight.")]
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return network


def augmentation(recorded, operation):
    uniform = recorded.get(f"{operation}.uniform", torch.zeros(1, 3, dtype=torch.float64))
    return Augmentation(operation=None if operation == "none" else operation, uniform=uniform)


def match(network, distilled, real, augment):
    target = class_gradient(network, augment(real), CLASS)
    return distance(class_gradient(network, augment(distilled), CLASS, differentiable=True), target)


@pytest.mark.parametrize("operation", ["none", "rotate", "color"])
def test_agrees_with_the_released_code(recorded, operation):
    network, augment = network_of(recorded), augmentation(recorded, operation)
    matching = ClassMatching(network, network)
    gradient, loss = matching(recorded["distilled"], recorded["real"], CLASS, augment)
    torch.testing.assert_close(loss, recorded[f"{operation}.distance"][0], rtol=1e-6, atol=0)
    expected = recorded[f"{operation}.gradient"]
    assert (gradient - expected).norm() < 1e-6 * expected.norm()


def test_image_gradient_agrees_with_finite_differences(recorded):
    network, augment = network_of(recorded), augmentation(recorded, "rotate")
    distilled = recorded["distilled"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        match(network, distilled, recorded["real"], augment), [distilled]
    )
    generator, step = torch.Generator().manual_seed(1), 1e-6
    for _ in range(3):
        direction = torch.randn(distilled.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (
            match(network, distilled.detach() + sign * step * direction, recorded["real"], augment)
            for sign in (1, -1)
        )
        slope = (ahead - behind).detach() / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_distance_is_one_minus_the_cosine_of_each_output():
    generator = torch.Generator().manual_seed(2)
    shapes = [(4, 3, 2, 2), (5, 7)]
    g, t = (
        [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in "gt"
    )
    expected = sum(
        float(cosine(row.flatten().numpy(), other.flatten().numpy()))
        for a, b in zip(g, t, strict=True)
        for row, other in zip(a, b, strict=True)
    )
    assert float(distance(g, t)) == pytest.approx(expected, rel=1e-6)
    assert float(distance(g, [3 * x for x in g])) == pytest.approx(0, abs=1e-5)


def test_epsilon_is_added_to_the_product_of_the_norms():
    g = torch.tensor([[3e-3, 4e-3]], dtype=torch.float64)
    t = torch.tensor([[4e-3, 3e-3]], dtype=torch.float64)
    assert float(distance([g], [t])) == pytest.approx(1 - 24e-6 / (25e-6 + 1e-6))


def test_only_weights_of_rank_two_and_more_take_part(recorded):
    network = network_of(recorded)
    gradient = class_gradient(network, recorded["real"], CLASS)
    assert [g.ndim for g in gradient] == [4, 4, 4, 2]
    assert not any(g.requires_grad for g in gradient)
