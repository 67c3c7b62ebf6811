"""Fresh networks by name, from a generator and nothing else."""

import pytest
import torch

from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape, UsageError

FACTORY = NetworkFactory(shape=ImageShape(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new(model, seed=0, factory=FACTORY, **settings):
    return factory(model, 10, generator(seed), **settings)


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32, generator=generator())


def test_draws_from_the_generator_so_that_the_next_network_is_another():
    stream = generator()
    one, two = (FACTORY("convnet", 10, stream, widths=(4, 4)) for _ in range(2))
    assert not torch.equal(one.head.weight, two.head.weight)


def test_parses_settings_given_as_text():
    network = FACTORY("convnet", 10, generator(), widths="4,8", norm="none")
    assert network.num_features == 8 * 8 * 8


@pytest.mark.parametrize(
    ("model", "settings", "num_features"),
    [
        ("test_vit", {}, 64),  # needs to be told the size of its images
        ("test_resnet.r160_in1k", {}, 96),
        ("mobilenetv3_small_050", {}, 1024),  # its `num_features` are those before its head
        ("resnet10t", {"channels": "(8, 8, 16, 24)"}, 24),
    ],
)
def test_falls_back_to_timm(model, settings, num_features, images):
    network = new(model, **settings)
    assert network.num_features == num_features
    assert all(module.training for module in network.modules())
    assert network(images).shape == (4, 10)
    torch.testing.assert_close(new(model, **settings)(images), new(model, **settings)(images))


def test_timm_models_see_as_many_channels_as_the_images_have():
    grey = NetworkFactory(shape=ImageShape(1, 64, 64), mean=(0.5,), std=(0.25,))
    assert new("test_vit", factory=grey)(torch.rand(2, 1, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("resnet_18", {}, "unknown model 'resnet_18': did you mean 'resnet18'.*known: alexnet, "),
        ("hf-hub:timm/resnet18.a1_in1k", {}, "unknown model"),
        ("convnet", {"width": "1"}, "unknown setting of convnet 'width': did you mean 'widths'"),
        ("convnet", {"shape": "1"}, "unknown setting of convnet 'shape'.*known: widths, norm$"),
        ("vit", {"depth": "many"}, "vit.depth=many: expected int"),
        ("test_resnet", {"depth": "3"}, "test_resnet on 3x32x32 images: .*'depth'"),
        ("test_vit", {"patch_size": "[]"}, "test_vit on 3x32x32 images"),
        ("test_vit", {"patch_size": "0"}, "test_vit on 3x32x32 images: .*zero"),
        ("test_resnet", {"output_stride": "(1,2"}, "test_resnet on 3x32x32 images: AssertionErr"),
        ("test_resnet", {"pretrained": "True"}, "test_resnet.pretrained: expected a setting of"),
        ("test_resnet", {"checkpoint_path": "weights.pt"}, "test_resnet.checkpoint_path"),
    ],
)
def test_tells_a_mistake_in_one_line(model, settings, message):
    with pytest.raises(UsageError, match=message) as raised:
        FACTORY(model, 10, generator(), **settings)
    assert "\n" not in str(raised.value)
