"""Inputs of kernels: random images, networks with equal weights, a loop without checkpoints."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from benchmark import rng
from benchmark.compute import Compute
from benchmark.datasets.cifar100 import Cifar100
from benchmark.kernel import Outcome
from benchmark.models._instance_norm import InstanceNorm
from benchmark.models.convnet import convnet
from benchmark.network import Network
from benchmark.network_factory import NetworkFactory
from benchmark.spec import ImageShape, NewNetwork

MEAN, STD = Cifar100.info.mean, Cifar100.info.std


def stream(name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator of a kernel's random numbers, the same in every call."""
    return rng.generator("kernel", name, device=device)


def pixels(num: int, side: int, compute: Compute) -> UInt8[Tensor, "n 3 h w"]:
    """Return random images."""
    drawn = torch.randint(256, (num, 3, side, side), generator=stream("pixels"), dtype=torch.uint8)
    return drawn.to(compute.device)


def normal(name: str, *shape: int, compute: Compute) -> Float[Tensor, "..."]:
    """Return normal random numbers."""
    return torch.randn(shape, generator=stream(name)).to(compute.device)


def factories(compute: Compute, side: int) -> tuple[NewNetwork, NewNetwork]:
    """Return what makes the library's networks, and what makes those of twins.

    The latter are in fp32 and the default layout, and have the framework's own layers.
    """
    new_network = NetworkFactory(
        shape=ImageShape(3, side, side),
        mean=MEAN,
        std=STD,
        precision=compute.precision,
        memory_format=compute.memory_format,
        device=compute.device,
    )
    plain = replace(new_network, precision="fp32", memory_format=torch.contiguous_format)

    def of_twin(model: str, num_outputs: int, generator: torch.Generator, **how: Any) -> Network:
        return _obvious(plain(model, num_outputs, generator, **how))

    return new_network, of_twin


def networks(
    compute: Compute, side: int, model: str, num_outputs: int, **settings: Any
) -> tuple[Network, Network]:
    """Return the library's network and the twin's, with the same weights in every call."""
    fast, plain = (
        new_network(model, num_outputs, stream("network"), **settings)
        for new_network in factories(compute, side)
    )
    return fast, plain


def _obvious(network: Network) -> Network:
    """Give a ConvNet the framework's own pooling and norms, in place, and return it."""
    for name, layer in network.backbone.named_children():
        if type(layer).__module__ == convnet.__module__:
            network.backbone.register_module(name, nn.AvgPool2d(2))
        elif isinstance(layer, InstanceNorm):
            norm = nn.GroupNorm(layer.num_groups, layer.num_channels, device=layer.weight.device)
            norm.load_state_dict(layer.state_dict())
            network.backbone.register_module(name, norm)
    return network


def moved(before: nn.Module, after: nn.Module) -> Outcome:
    """Return the change of all parameters between two copies, in one tensor."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return (torch.cat([(q - p).detach().flatten() for p, q in pairs]),)


class BareLoop:
    """A `spec.Loop` of at most `most` steps, which keeps only the last logged values."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self.logged: dict[str, Tensor | float] = {}

    def steps(self, name: str, total: int, **state: Any) -> Iterator[int]:
        """See `spec.Loop.steps`."""
        yield from range(min(total, self.most))

    def charge(self, seconds: float) -> None:
        """See `spec.Loop.charge`."""

    def log(self, step: int, **values: Tensor | float) -> None:
        """See `spec.Loop.log`."""
        self.logged = values
