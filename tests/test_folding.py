"""Networks without their batch norms: the same features in float64, and nothing else changed."""

import copy

import pytest
import torch
from torch import nn

from benchmark import rng
from benchmark.folding import foldable, folded
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape

SHAPE = ImageShape(3, 32, 32)
NEW = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.25,) * 3)
NARROW = {
    "convnet": {"widths": (8, 16, 16)},
    "vgg11": {"width": 0.125},
    "resnet18": {"width": 0.125},
    "alexnet": {"width": 0.125},
    "mobilenet": {"width": 0.125},
    "resnet-small": {"widths": (8, 16, 16, 16)},
    "densenet121": {"growth_rate": 4, "block_config": (2, 2)},  # timm's; some norms come first
}
NORMS = {
    "convnet": (3, 3),
    "vgg11": (8, 8),
    "resnet18": (20, 20),
    "alexnet": (5, 5),
    "mobilenet": (52, 52),
    "resnet-small": (12, 12),
    "densenet121": (5, 11),
}


def images(num=8):
    return torch.rand(num, 3, 32, 32, generator=rng.generator("folding"), dtype=torch.float64)


def network(name):
    """Return a network in evaluation mode whose norms have seen images, with random weights."""
    made = NEW(name, 4, torch.Generator().manual_seed(1), **NARROW[name]).double()
    generator = torch.Generator().manual_seed(2)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for weight in (module.weight, module.bias):
                nn.init.uniform_(weight, 0.5, 1.5, generator=generator)
    with torch.no_grad():
        for _ in range(3):
            made(images())
    return made.eval()


def num_norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("name", NARROW)
def test_features_and_their_gradients_are_the_same_in_float64(name):
    net = network(name)
    before = copy.deepcopy(net.state_dict())
    frozen = net.frozen()
    pairs, norms = NORMS[name]
    assert (num_norms(net), num_norms(frozen)) == (norms, norms - pairs)

    outcomes = []
    for each in (net, frozen):
        x = images().requires_grad_()
        features = each.features(x)
        features.square().sum().backward(inputs=[x])
        outcomes.append((features.detach(), x.grad))
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())
    assert not torch.equal(*(features for features, _ in outcomes))  # so something was folded
    for name_of, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name_of])


def test_it_has_the_weights_of_the_moment():
    net = network("convnet")
    first = net.frozen().features(images())
    with torch.no_grad():
        net.backbone[0].weight.mul_(2)
        net.backbone[1].running_mean.add_(0.1)
    second = net.frozen().features(images())
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, net.features(images()))


def test_head_and_memory_budget_are_shared():
    limited = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.25,) * 3, max_memory=2**20)
    net = limited("convnet", 4, torch.Generator(), widths=(8, 16)).eval()
    frozen = net.frozen()
    assert frozen.head is net.head
    assert frozen.chunks is net.chunks
    many = images(64).float()
    torch.testing.assert_close(frozen.features(many), net.features(many))


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_backbone_without_batch_norm_is_not_copied(norm):
    net = NEW("convnet", 4, torch.Generator(), widths=(8,), norm=norm).eval()
    assert net.frozen().backbone is net.backbone


class Branches(nn.Module):
    """Two paths from one convolution, of which a norm sees one."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class Twice(nn.Module):
    """A convolution and a norm that are called more than once."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x))))


class Depends(nn.Module):
    """A flow that values decide."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return x if x.sum() > 0 else -x


class Scaled(nn.Conv2d):
    """A convolution that does more than torch's."""

    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "backbone",
    [
        Branches(),
        Twice(),
        Depends(),
        nn.Sequential(Scaled(3, 4, 1), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
    ],
    ids=["two readers", "called twice", "depends on values", "subclass", "relu", "no statistics"],
)
def test_what_is_not_one_affine_map_stays(backbone):
    assert foldable(backbone) == ()
    assert folded(backbone, foldable(backbone)) is backbone


def test_training_is_not_touched():
    net = network("mobilenet")
    net.frozen()
    net.train()
    twin = network("mobilenet").train()
    torch.testing.assert_close(net(images()), twin(images()), rtol=0, atol=0)
