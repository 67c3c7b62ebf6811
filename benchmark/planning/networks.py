"""The networks of a suite, and what each of them costs; a plan makes and counts each once."""

from dataclasses import replace

import torch

from benchmark import rng
from benchmark.grid import Suite
from benchmark.network import Network, Precision
from benchmark.network_factory import NetworkFactory
from benchmark.planning.network_cost import NetworkCost, Pass, forward_cost, training_cost
from benchmark.spec import ImageShape
from benchmark.workload import Architecture

_ANY = (0.5, 0.5, 0.5)  # pixel statistics: they cost nothing


class Networks:
    """Networks by architecture, and what they cost; each is made and counted once.

    The heads of students differ little in cost, so that one stands for all.
    """

    def __init__(self, new_network: NetworkFactory) -> None:
        self.new_network = new_network
        self._made: dict[Architecture, Network] = {}
        self._costs: dict[tuple[Architecture, bool], NetworkCost] = {}

    def of(self, architecture: Architecture) -> Network:
        """Return a network with fresh weights."""
        key = headless(architecture)
        if key not in self._made:
            network = self.new_network(
                architecture.model,
                architecture.num_outputs,
                rng.generator("plan"),
                **dict(architecture.settings),
            )
            network.precision = architecture.precision or network.precision
            if architecture.default_layout:
                network.memory_format = torch.contiguous_format
                network.to(memory_format=torch.contiguous_format)
            self._made[key] = network
        return self._made[key]

    def cost(self, architecture: Architecture, batch: int, *, training: bool) -> Pass:
        """Return what one pass of a batch takes."""
        key = headless(architecture), training
        if key not in self._costs:
            count = training_cost if training else forward_cost
            self._costs[key] = count(self.of(architecture), self.new_network.shape)
        return self._costs[key].at(batch)


def headless(architecture: Architecture) -> Architecture:
    """Return the architecture that stands for all heads on its backbone."""
    return replace(architecture, num_outputs=0)


def networks_of(
    suite: Suite,
    precision: Precision,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    device: torch.device | str = "cpu",
    max_memory: int | None = None,
) -> Networks:
    """Return the networks of a suite, for images of its size."""
    return Networks(
        NetworkFactory(
            shape=ImageShape(3, suite.size, suite.size),
            mean=_ANY,
            std=_ANY,
            precision=precision,
            memory_format=memory_format,
            device=device,
            max_memory=max_memory,
        )
    )
