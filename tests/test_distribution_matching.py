import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import avg_pool2d, cross_entropy

from benchmark.differentiable_augmentation import Augmentation
from benchmark.methods._distribution_matching import (
    expand,
    feature_distance,
    mean_features,
    shrink,
)
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape

RECORDED = Path(__file__).parent / "fixtures" / "idm.safetensors"


@pytest.fixture(scope="module")
def recorded():
    with safe_open(RECORDED, "pt") as file:
        assert "fe23bbc" in json.loads(file.metadata()["provenance"])["repository"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def network(recorded):
    factory = NetworkFactory(shape=ImageShape(3, 16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    generator = torch.Generator().manual_seed(0)
    network = factory("convnet", 4, generator, widths=(6, 6, 6), norm="instance").double()
    weights = [recorded[name] for name in sorted(recorded) if name.startswith("weight.")]
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return network.eval()


def test_expansion_and_shrinking_agree_with_the_released_code(recorded):
    torch.testing.assert_close(expand(recorded["canvases"]), recorded["expanded"])
    torch.testing.assert_close(shrink(recorded["real"]), recorded["shrunk"])


@pytest.mark.parametrize("operation", ["none", "cutout", "scale"])
def test_loss_of_one_class_agrees_with_the_released_code(recorded, network, operation):
    uniform = recorded.get(f"{operation}.uniform", torch.zeros(1, 3, dtype=torch.float64))
    augment = Augmentation(operation=None if operation == "none" else operation, uniform=uniform)
    canvases = recorded["canvases"].clone().requires_grad_()
    features = network.features(augment(expand(canvases)))
    real = mean_features(network, [augment(recorded["real"])])
    labels = torch.full((8,), 2)
    loss = feature_distance(features[None], real)
    loss = loss + 0.1 * 37.5 * cross_entropy(network.head(features), labels)
    (gradient,) = torch.autograd.grad(loss, [canvases])
    torch.testing.assert_close(loss, recorded[f"{operation}.loss"][0], rtol=1e-6, atol=0)
    expected = recorded[f"{operation}.gradient"]
    assert (gradient - expected).norm() < 1e-6 * expected.norm()


def test_quarters_come_column_by_column():
    canvas = torch.zeros(1, 1, 4, 4)
    canvas[..., :2, :2], canvas[..., 2:, :2], canvas[..., :2, 2:], canvas[..., 2:, 2:] = 1, 2, 3, 4
    expected = torch.arange(1.0, 5).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    assert torch.equal(expand(canvas), expected)


def test_shrinking_is_the_mean_of_four_pixels():
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shrink(images), avg_pool2d(images, 2))


def test_mean_features_do_not_depend_on_chunks(network):
    batches = torch.randn(
        1030, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).split([3, 1000, 27])
    with torch.no_grad():
        expected = torch.stack([network.features(batch).mean(0) for batch in batches])
    torch.testing.assert_close(mean_features(network, batches), expected)


def test_feature_distance_sums_over_classes():
    generator = torch.Generator().manual_seed(0)
    distilled = torch.randn(2, 4, 5, generator=generator)
    real = torch.randn(2, 5, generator=generator)
    expected = sum((distilled[c].mean(0) - real[c]).norm() ** 2 for c in range(2))
    torch.testing.assert_close(feature_distance(distilled, real), expected)
