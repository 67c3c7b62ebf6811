"""The contract that every model plug-in keeps, and what the literature says of their sizes."""

import dataclasses

import pytest
import torch
from timm.models.resnet import resnet18 as timm_resnet18
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark import plugins
from benchmark.models.convnet import convnet
from benchmark.models.mobilenet import mobilenet
from benchmark.models.resnet18 import resnet18
from benchmark.models.resnet_small import resnet_small
from benchmark.models.vgg11 import vgg11
from benchmark.models.vit import vit
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape, UsageError

CIFAR = ImageShape(3, 32, 32)

# How to make the plug-ins narrow. A new one is tested as it is.
NARROW = {
    "alexnet": {"width": 0.125},
    "convnet": {"widths": (8, 16, 32)},
    "mobilenet": {"width": 0.125},
    "resnet18": {"width": 0.125},
    "vgg11": {"width": 0.125},
    "vit": {"width": 0.125, "depth": 2},
}

every_model = pytest.mark.parametrize("model", plugins.names("models"))


def narrow(model, shape=CIFAR):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plugins.load("models", model)(shape, **NARROW.get(model, {}))


def images(number, shape=CIFAR):
    size = (number, shape.c, shape.h, shape.w)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def num_parameters(backbone):
    return sum(parameter.numel() for parameter in backbone.parameters())


@every_model
@pytest.mark.parametrize("shape", [CIFAR, ImageShape(1, 64, 64)], ids=str)
def test_gives_as_many_flat_features_as_it_says(model, shape):
    backbone = narrow(model, shape)
    features = backbone(images(2, shape))
    assert isinstance(backbone.num_features, int)
    assert features.shape == (2, backbone.num_features)
    assert features.isfinite().all()


@every_model
def test_learns_in_every_parameter_and_through_its_input(model):
    backbone = narrow(model)
    for block in backbone.modules():  # a block that starts as its shortcut hides its own weights
        if isinstance(block, nn.BatchNorm2d):
            nn.init.ones_(block.weight)
    x = images(4).requires_grad_()
    (backbone(x) * images(1).flatten()[: backbone.num_features]).sum().backward()
    assert x.grad is not None and (x.grad.flatten(1).norm(dim=1) > 0).all()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name


@every_model
def test_evaluates_an_image_whatever_its_batch_mates(model):
    backbone = narrow(model).eval()
    x = images(4)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[:1], backbone(x[:1]), rtol=1e-4, atol=1e-5)


@every_model
def test_tells_images_apart_as_initialised(model):
    backbone = narrow(model)
    with torch.no_grad():
        one, other = backbone(images(8))[:2]
    assert (one - other).norm() > 1e-3 * one.norm()


FACTORY = NetworkFactory(shape=CIFAR, mean=(0.5,) * 3, std=(0.25,) * 3)


def new(model, seed=0, factory=FACTORY):
    return factory(model, 10, torch.Generator().manual_seed(seed), **NARROW.get(model, {}))


def pixels(number):
    return images(number).mul(0.25).add(0.5)


@every_model
def test_the_generator_alone_decides_the_weights(model):
    before = torch.get_rng_state()
    first, again, other = new(model), new(model), new(model, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)  # a different global state must not matter either
    elsewhere = new(model)
    torch.set_rng_state(before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert torch.equal(weight, elsewhere.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)
    differ = [
        not torch.equal(ours, theirs)
        for ours, theirs in zip(first.parameters(), other.parameters(), strict=True)
        if ours.std() > 0
    ]
    assert differ and all(differ)


@every_model
def test_bf16_is_close_to_fp32(model):
    rough = new(model, factory=dataclasses.replace(FACTORY, precision="bf16"))
    with torch.no_grad():
        exact, rough = new(model).features(pixels(8)), rough.features(pixels(8))
    assert rough.dtype == torch.float32
    # Fifty layers with batch norm over few images add up: a right one differs by up to a tenth.
    assert (rough - exact).norm() < 0.15 * exact.norm()


@every_model
def test_channels_last_moves_no_number(model):
    last = new(model, factory=dataclasses.replace(FACTORY, memory_format=torch.channels_last))
    weights = [p for p in last.backbone.parameters() if p.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    with torch.no_grad():
        torch.testing.assert_close(last(pixels(4)), new(model)(pixels(4)), rtol=1e-3, atol=1e-4)


@every_model
def test_is_differentiable_twice(model):
    """The gradient of a gradient's norm, along a random direction of the pixels, in float64."""
    network = new(model).double().eval()
    x, step = pixels(2).double(), images(4)[2:].double()

    def squared_gradient(x):
        weights = [network.head.weight, *network.backbone.parameters()]
        gradients = torch.autograd.grad(network(x).tanh().sum(), weights, create_graph=True)
        return sum(gradient.square().sum() for gradient in gradients)

    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(squared_gradient(point), point)
    width = 1e-7
    difference = squared_gradient(x + width * step) - squared_gradient(x - width * step)
    expected = difference.item() / (2 * width)
    assert (slope * step).sum().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "settings", "backbone", "with_head"),
    [
        ("convnet", {}, 1_480_704, {100: 2_300_004, 512: 5_675_520, 10: 1_562_634}),
        (
            "convnet",
            {"widths": (128,) * 3, "norm": "instance"},
            299_520,
            {10: 320_010, 100: 504_420},
        ),
        ("alexnet", {}, 1_843_392, {100: 2_150_692, 512: 3_416_768, 10: 1_874_122}),
        ("vgg11", {}, 9_225_984, {100: 9_277_284, 512: 9_488_640, 10: 9_231_114}),
        ("resnet18", {}, 11_168_832, {100: 11_220_132, 512: 11_431_488, 10: 11_173_962}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_has_the_published_number_of_parameters(model, settings, backbone, with_head):
    """Counts of the public KRR-ST and DSA code, with linear heads of several lengths."""
    with torch.device("meta"):
        network = plugins.load("models", model)(CIFAR, **settings)
    assert num_parameters(network) == backbone
    for outputs, total in with_head.items():
        assert backbone + (network.num_features + 1) * outputs == total


def test_mobilenet_lacks_only_the_documented_parts_of_krr_st_s():
    before_first_depthwise, channel_changing_shortcuts = (
        (32, 32),
        [(32, 16), (16, 24), (64, 96), (160, 320)],
    )
    convolutions = [before_first_depthwise, *channel_changing_shortcuts]  # each with a batch norm
    lacking = sum(c_in * c_out + 2 * c_out for c_in, c_out in convolutions)
    assert num_parameters(mobilenet(CIFAR)) == 1_079_504 - lacking


def test_vit_has_the_parameters_of_vit_tiny_but_for_its_patches():
    tiny_224 = 5_524_416  # timm's vit_tiny_patch16_224 without classifier
    patches = 192 * 3 * (16**2 - 4**2)
    positions = 192 * (14**2 - 8**2)
    assert num_parameters(vit(CIFAR)) == tiny_224 - patches - positions


def test_resnet18_keeps_the_parameter_names_of_the_original():
    ours, original = resnet18(CIFAR).state_dict(), timm_resnet18(num_classes=0).state_dict()
    assert list(ours) == list(original)
    shapes = {name: tensor.shape for name, tensor in original.items()}
    shapes["conv1.weight"] = torch.Size([64, 3, 3, 3])
    assert {name: tensor.shape for name, tensor in ours.items()} == shapes


@pytest.mark.parametrize(
    ("widths", "stem_stride", "last_width", "parameters", "millions"),
    [
        ((32, 64, 128), 2, None, 307_360, 12.3),
        ((32, 64, 128), 1, None, 307_360, 49.1),
        ((32, 64, 128, 256), 2, None, 1_226_400, 15.9),
        ((32, 64, 128, 256), 1, None, 1_226_400, 63.8),
        ((32, 64, 128, 256), 2, 512, 1_358_496, 16.5),
    ],
)
def test_resnet_small_costs_what_its_documentation_says(
    widths, stem_stride, last_width, parameters, millions
):
    backbone = resnet_small(
        CIFAR, widths=widths, stem_stride=stem_stride, last_width=last_width
    ).eval()
    with FlopCounterMode(display=False) as counter:
        features = backbone(images(1))
    assert features.shape == (1, last_width or widths[-1])
    assert num_parameters(backbone) == parameters
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions, abs=0.05)


def test_convnet_is_the_textbook_block_repeated():
    """Against convolution, instance norm and pooling written as formulas, in float64."""
    backbone = convnet(CIFAR, widths=(4, 6), norm="instance").double()
    x = expected = images(2).double()
    for index in (0, 4):
        conv, norm = backbone[index], backbone[index + 1]
        patches = nn.functional.unfold(expected, 3, padding=1)
        maps = conv.weight.flatten(1) @ patches + conv.bias[:, None]
        centred = maps - maps.mean(2, keepdim=True)
        normed = centred / (maps.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        normed = normed * norm.weight[:, None] + norm.bias[:, None]
        side = expected.shape[-1] // 2
        blocks = normed.clamp(min=0).unflatten(2, (side, 2, side, 2))
        expected = blocks.mean((3, 5))
    torch.testing.assert_close(backbone(x), expected.flatten(1))


def test_a_convnet_without_norm_has_none():
    assert num_parameters(convnet(CIFAR, widths=(4, 8), norm="none")) == 4 * 28 + 8 * 37


@pytest.mark.parametrize("model", NARROW)
def test_gets_smaller_with_its_narrow_settings(model):
    with torch.device("meta"):
        full = plugins.load("models", model)(CIFAR)
    assert num_parameters(narrow(model)) < num_parameters(full) / 10


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: convnet(ImageShape(3, 4, 4)), "images of 4x4 vanish in 3 poolings"),
        (lambda: convnet(CIFAR, widths=()), "one or more blocks"),
        (lambda: vgg11(ImageShape(3, 28, 28)), "at least 32x32"),
        (lambda: vgg11(CIFAR, width=0.0), "positive"),
        (lambda: vit(ImageShape(3, 28, 28)), "patch_size=3.*divides 28x28"),
        (lambda: vit(CIFAR, patch_size=0), "patch_size=0"),
        (lambda: resnet18(CIFAR, stem_stride=3), "stride of 1 or 2"),
        (lambda: resnet_small(CIFAR, widths=(7, 9)), "one to four even numbers"),
        (lambda: resnet_small(CIFAR, last_width=0), "expected 1 or more channels"),
        (lambda: mobilenet(CIFAR, expansion=0), "at least 1"),
    ],
)
def test_refuses_impossible_settings_in_one_line(build, message):
    with pytest.raises(UsageError, match=message) as raised:
        build()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 8), (8, 5)])
def test_convnet_pools_as_torch_does_to_the_second_derivative(layout, size, dtype):
    _, _, _, pool, _ = convnet(ImageShape(3, 8, 8), widths=(4,))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 4, *size, dtype=torch.float64, generator=generator).to(dtype)
    found = []
    for halve in (pool, torch.nn.AvgPool2d(2)):
        x = images.contiguous(memory_format=layout).requires_grad_()
        y = halve(x)
        (first,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
        found.append((y, first, second))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
