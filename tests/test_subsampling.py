"""Strided 1x1 convolutions: the same map without the stride, and no memory overwritten."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape
from benchmark.subsampling import subsample_first

# Of a shortcut of a narrow ResNet-18: with torch's own convolution, and two or three threads, this
# dies on processors with AVX-512. Blocks of their own pages make any write beyond one fatal.
SCRIPT = """
import torch
from torch import nn
from benchmark.subsampling import subsample_first

conv = nn.Conv2d(8, 16, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
subsample_first(conv)
for threads in (2, 3):
    torch.set_num_threads(threads)
    for num in (31, 61, 125):
        images = torch.randn(num, 8, 16, 16).contiguous(memory_format=torch.channels_last)
        conv(images.requires_grad_()).square().sum().backward()
"""


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX512"),
    reason="oneDNN's own convolution dies with AVX-512 only",
)
def test_backward_passes_on_several_threads_write_nowhere_else():
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "4096"}
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, env=environment)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(5, 7, 1, stride=2),
        nn.Conv2d(5, 7, 1, stride=(1, 2)),
        nn.Conv2d(5, 7, 1, stride=(3, 2), padding="valid"),
        nn.Conv2d(16, 8, 1, stride=2, groups=2),
    ],
)
def test_outputs_and_gradients_are_those_of_the_convolution(conv):
    conv = conv.double()
    mine = copy.deepcopy(conv)
    subsample_first(mine)
    assert mine.stride == (1, 1)
    images = torch.randn(3, conv.in_channels, 9, 8, dtype=torch.float64, requires_grad=True)
    ours, theirs = mine(images), conv(images)
    torch.testing.assert_close(ours, theirs)
    inputs = (ours, (images, *mine.parameters())), (theirs, (images, *conv.parameters()))
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x) for y, x in inputs))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 8, 1, stride=2),  # wide enough
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Conv2d(8, 8, 1, stride=2, padding=1),
    ],
)
def test_other_convolutions_stay_as_they_are(conv):
    before = copy.deepcopy(conv)
    subsample_first(conv)
    assert conv.stride == before.stride
    assert not conv._forward_pre_hooks


def test_networks_are_made_without_them():
    factory = NetworkFactory(shape=ImageShape(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    network = factory("resnet18", 10, torch.Generator().manual_seed(0), width=0.125)
    strides = [
        conv.stride
        for conv in network.modules()
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and conv.in_channels < 16
    ]
    assert strides == [(1, 1)]
