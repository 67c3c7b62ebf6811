"""Instance normalisation against PyTorch's own, and its derivatives against finite differences."""

import pytest
import torch
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.func import functional_call

from benchmark.models import _instance_norm
from benchmark.models._instance_norm import InstanceNorm


@pytest.fixture
def norm():
    made = InstanceNorm(3)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def images(*shape, dtype=torch.float64):
    x = 3 + torch.randn(*shape, dtype=dtype)
    return x.requires_grad_()


def called(norm):
    return lambda x, weight, bias: functional_call(norm, {"weight": weight, "bias": bias}, (x,))


@pytest.mark.parametrize(
    "memory_format",
    [torch.contiguous_format, torch.channels_last],
    ids=["default", "channels-last"],
)
def test_both_derivatives_are_those_of_finite_differences(norm, memory_format):
    norm = norm.double()
    x = images(2, 3, 4, 5).detach().contiguous(memory_format=memory_format).requires_grad_()
    assert gradcheck(called(norm), (x, norm.weight, norm.bias))
    assert gradgradcheck(called(norm), (x, norm.weight, norm.bias))


@pytest.mark.parametrize("as_channels", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_numbers_and_second_derivatives_are_those_of_torch(
    norm, dtype, tolerance, as_channels, monkeypatch
):
    monkeypatch.setattr(_instance_norm, "_as_channels", lambda *_: as_channels)
    theirs = nn.GroupNorm(3, 3)
    theirs.load_state_dict(norm.state_dict())
    x = images(4, 3, 8, 8, dtype=dtype)
    up = torch.randn(4, 3, 8, 8).to(dtype)

    def outcomes(layer):
        y = layer(x).relu()
        first = grad((y * y * up).sum(), (x, *layer.parameters()), create_graph=True)
        total = sum((part.float().square()).sum() for part in first)
        return [y, *first, *grad(total, (x, layer.weight, layer.bias), retain_graph=True)]

    for mine, other in zip(outcomes(norm), outcomes(theirs), strict=True):
        assert mine.dtype == other.dtype
        assert (mine - other).norm() <= tolerance * other.norm()


def test_bf16_is_normalised_in_float32_on_any_device(norm, device):
    norm, x = norm.to(device), images(4, 3, 8, 8, dtype=torch.bfloat16)
    up, second = torch.randn(2, 4, 3, 8, 8).to(x.dtype)

    def outcomes(layer, dtype, place):
        layer, images = layer.to(place), x.detach().to(place, dtype).requires_grad_()
        y = layer(images)
        first = grad(y, (images, *layer.parameters()), up.to(y), create_graph=True)
        at_x = grad(first[0], images, second.to(y))
        return [outcome.detach().cpu().float() for outcome in (y, *first, *at_x)]

    found = outcomes(norm, torch.bfloat16, device)
    for mine, exact in zip(found, outcomes(norm, torch.float32, "cpu"), strict=True):
        assert (mine - exact).norm() <= 1e-2 * exact.norm()


def test_second_derivatives_of_a_few_images_at_a_time_are_those_of_all(norm, monkeypatch):
    x = images(5, 3, 8, 8, dtype=torch.float32)
    (first,) = grad(norm(x).pow(3).sum(), x, create_graph=True)
    parts = (x, *norm.parameters())

    def second():
        return grad(first.pow(3).sum(), parts, retain_graph=True)

    whole = second()
    monkeypatch.setattr(_instance_norm, "_CACHED", 2 * 3 * 4 * 3 * 8 * 8)  # two images
    at_x, at_weight, _ = second()
    assert torch.equal(at_x, whole[0])
    torch.testing.assert_close(at_weight, whole[1])


def test_images_are_normalised_apart(norm):
    x = images(4, 3, 8, 8, dtype=torch.float32)
    assert torch.equal(norm(x)[:1], norm(x[:1]))
    assert norm.keeps_images_apart


def test_weights_are_named_as_those_of_torch(norm):
    assert norm.state_dict().keys() == nn.GroupNorm(3, 3).state_dict().keys()


def test_there_is_no_third_derivative(norm):
    x = images(2, 3, 4, 4, dtype=torch.float32)
    (first,) = grad(norm(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative"):
        grad(first.pow(3).sum(), x, create_graph=True)


def test_weights_may_be_frozen_and_autocast_changes_no_sum(norm):
    norm.requires_grad_(False)
    x = images(2, 3, 8, 8, dtype=torch.float32)
    (first,) = grad(norm(x).pow(3).sum(), x, create_graph=True)
    total = first.pow(3).sum()
    (plain,) = grad(total, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = grad(total, x)
    assert torch.equal(cast, plain)
