"""The networks of a suite and their costs; a plan builds and counts each once."""

import math
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark import rng
from benchmark.grid import Suite
from benchmark.network import Network, Precision
from benchmark.network_factory import NetworkFactory
from benchmark.planning.network_cost import NetworkCost, PassCost, network_cost
from benchmark.spec import ImageShape
from benchmark.workload import Architecture, Work

_ANY = (0.5, 0.5, 0.5)  # pixel statistics: any will do


class Networks:
    """Networks by architecture, and their costs; each is built and counted once.

    The heads of students differ little in cost, so one stands for all.

    Attributes:
        new_network: makes them.
        elsewhere: whether to count as on a device other than the CPU, wherever they are built.
    """

    def __init__(self, new_network: NetworkFactory, *, elsewhere: bool = False) -> None:
        self.new_network, self.elsewhere = new_network, elsewhere
        self._made: dict[Architecture, Network] = {}
        self._costs: dict[tuple[Architecture, bool], NetworkCost] = {}
        self._fitting: dict[tuple[Architecture, bool, bool | None], int | None] = {}

    @property
    def max_memory(self) -> int | None:
        """Bytes that a stage may take; None means no limit."""
        return self.new_network.max_memory

    def of(self, architecture: Architecture) -> Network:
        """Return the network of an architecture, whatever its weights: it is made once."""
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
                network.use_memory_format(torch.contiguous_format)
            self._made[key] = network
        return self._made[key]

    def cost(self, architecture: Architecture, batch: int, *, training: bool) -> PassCost:
        """Return the cost of one pass of a batch."""
        key = headless(architecture), training
        if key not in self._costs:
            self._costs[key] = network_cost(
                self.of(architecture),
                self.new_network.shape,
                training=training,
                elsewhere=self.elsewhere,
            )
        return self._costs[key].at(batch)

    def at_once(self, architecture: Architecture, work: Work) -> int:
        """Return how many images of a batch are processed at once, in the equal chunks of a run."""
        fitting = None
        if work.splits is not False:
            kind = bool(work.training), work.splits
            key = headless(architecture), *kind
            if key not in self._fitting:
                self._fitting[key] = self._num_at_once(architecture, *kind)
            fitting = self._fitting[key]
        return math.ceil(work.batch / math.ceil(work.batch / (fitting or work.batch)))

    def _num_at_once(
        self, architecture: Architecture, training: bool, splits: bool | None
    ) -> int | None:
        """Ask the network itself, which measures the memory of a few images.

        For another device they have no data: this one may be slow in its precision.
        """
        network, shape = self.of(architecture), self.new_network.shape
        network.train(training and not splits)
        fake = FakeTensorMode(allow_non_fake_inputs=True) if self.elsewhere else nullcontext()
        with fake, torch.set_grad_enabled(training):
            images = torch.zeros(2, shape.c, shape.h, shape.w, device=network.mean.device)
            return network.num_at_once(images.requires_grad_(training and bool(splits)))


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
    elsewhere: bool = False,
) -> Networks:
    """Return the networks of a suite, for images of its size."""
    new_network = NetworkFactory(
        shape=ImageShape(3, suite.size, suite.size),
        mean=_ANY,
        std=_ANY,
        precision=precision,
        memory_format=memory_format,
        device=device,
        max_memory=max_memory,
    )
    return Networks(new_network, elsewhere=elsewhere)
