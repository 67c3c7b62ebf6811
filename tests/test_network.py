"""A network normalises its input, keeps its precision inside, and is differentiable twice."""

import pytest
import torch
from torch import nn

from benchmark.network import Network

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def network(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.AvgPool2d(4), nn.Flatten()
        )
        return Network(backbone, 32, 5, mean=MEAN, std=STD, **settings)


@pytest.fixture
def images():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_normalises_with_the_pixels_statistics(images):
    net = network()
    normalised = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(net.features(images), net.backbone(normalised))
    torch.testing.assert_close(net(images), net.head(net.backbone(normalised)))


def test_bf16_stays_inside_and_close(images):
    exact, rough = network()(images), network(precision="bf16")(images)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)


def test_the_memory_format_moves_no_number(images):
    net = network().use_memory_format(torch.channels_last)
    torch.testing.assert_close(net(images), network()(images))


def test_works_in_double_precision(images):
    net = network().double()
    outputs = net(images)
    assert outputs.dtype == torch.float64
    torch.testing.assert_close(outputs.float(), network()(images))


def test_its_statistics_are_no_part_of_its_state():
    assert not {"mean", "std"} & set(network().state_dict())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_has_right_first_and_second_derivatives_as_a_function_of_its_weights(images, memory_format):
    """Against finite differences, in float64."""
    net = network().double().use_memory_format(memory_format)
    names = [name for name, _ in net.named_parameters()]
    x = images[:2].double().requires_grad_()

    def outputs(x, *weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), x).tanh()

    inputs = (x, *net.parameters())
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, inputs, fast_mode=True)
