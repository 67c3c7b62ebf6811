import pytest
import torch
from torch import nn

from benchmark.methods._distilled import Bases, Pairs, decode_pairs, restore
from benchmark.network import Network
from benchmark.spec import ImageShape

SHAPE = ImageShape(2, 8, 8)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bases():
    return Bases(
        shape=SHAPE,
        image_bases=normal(3, 2, 4, 4),
        image_mean=normal(2, 4, 4, seed=1),
        image_coefficients=normal(5, 3, seed=2),
        target_bases=normal(4, 6, seed=3),
        target_mean=normal(6, seed=4),
        codes=normal(2, 5, 4, seed=5),
    )


def pairs():
    return Pairs(normal(5, 2, 8, 8), normal(2, 5, 6, seed=1))


def doubling(n):
    """Bilinear interpolation to twice the length: a quarter from one neighbour, clamped at ends."""
    matrix = torch.zeros(2 * n, n)
    for i in range(n):
        matrix[2 * i, i] = matrix[2 * i + 1, i] = 0.75
        matrix[2 * i, max(i - 1, 0)] += 0.25
        matrix[2 * i + 1, min(i + 1, n - 1)] += 0.25
    return matrix


def test_images_are_upsampled_sums_of_bases_and_mean():
    distilled = bases()
    small = distilled.image_mean + torch.einsum(
        "mu,uchw->mchw", distilled.image_coefficients, distilled.image_bases
    )
    expected = doubling(4) @ small @ doubling(4).T
    torch.testing.assert_close(distilled.images(), expected)
    chosen = torch.tensor([3, 0])
    torch.testing.assert_close(distilled.images(chosen), expected[chosen])


def test_targets_are_sums_of_bases_and_mean_whatever_axes_the_codes_have():
    distilled = bases()
    targets = distilled.targets(distilled.codes)
    for view in range(2):
        for i in range(5):
            expected = distilled.target_mean + sum(
                distilled.codes[view, i, q] * distilled.target_bases[q] for q in range(4)
            )
            torch.testing.assert_close(targets[view, i], expected)
            torch.testing.assert_close(distilled.targets(distilled.codes[view, i]), expected)


@pytest.mark.parametrize("make", [pairs, bases])
def test_what_is_stored_and_codes_are_all_that_is_needed(make):
    distilled = make()
    again = restore(distilled.stored(distilled.codes), SHAPE)
    assert type(again) is type(distilled)
    assert torch.equal(again.images(), distilled.images())
    assert torch.equal(again.targets(again.codes), distilled.targets(distilled.codes))


@pytest.mark.parametrize("make", [pairs, bases])
def test_everything_but_the_means_is_optimised(make):
    distilled = make()
    for parameter in distilled.parameters():
        parameter.requires_grad_()
    index = torch.tensor([1, 2])
    score = distilled.images(index).sum() + distilled.targets(distilled.codes[:, index]).sum()
    score.backward()
    for parameter in distilled.parameters():
        assert parameter.grad is not None
    held = {id(parameter) for parameter in distilled.parameters()}
    fixed = {name for name, x in vars(distilled).items() if id(x) not in held and name != "shape"}
    assert fixed == ({"image_mean", "target_mean"} if make is bases else set())


@pytest.mark.parametrize("make", [pairs, bases])
def test_rescaled_pixels_seen_by_a_network_are_the_raw_ones_seen_unnormalised(make):
    mean, std = (0.4, 0.6), (0.2, 0.3)
    network = Network(nn.Flatten(), 128, 3, mean=mean, std=std)
    distilled = make()
    raw = distilled.images().flatten(1)
    distilled.rescale(torch.tensor(std).view(2, 1, 1), torch.tensor(mean).view(2, 1, 1))
    torch.testing.assert_close(network.features(distilled.images()), raw, rtol=1e-4, atol=1e-5)


def test_stored_pairs_decode_as_they_are():
    images, targets = normal(5, 2, 8, 8), normal(5, 6)
    decoded = decode_pairs({"images": images, "targets": targets})
    assert decoded.images is images
    assert torch.equal(decoded.targets, targets[None])
    assert (decoded.views, decoded.objective) == (("identity",), "mse")
