"""How long work takes on this machine, by a calibration of a few seconds.

Every network is timed on a small batch, in a forward pass and in a training step, so that the time
per image includes norms, activations and whatever else operation counts miss. The rest uses the
rates of `benchmark.timing`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from benchmark import rng
from benchmark.captured import CALLS_TO_CAPTURE, CapturedStep, captures, tensors_of
from benchmark.compute import Compute
from benchmark.grid import Suite
from benchmark.network import DTYPES, Network, Precision
from benchmark.operators import operators_of
from benchmark.planning.devices import Device, Roofline
from benchmark.planning.networks import Networks, headless, networks_of
from benchmark.provenance import device_name
from benchmark.spec import ImageShape
from benchmark.tf32 import products_in_tf32
from benchmark.timing import Clock, large_product_rate, measure_rates
from benchmark.workload import Architecture

_TINY_LAYERS, _TINY_STEPS = 8, 20  # of a network that measures launches
_TRIALS = 3  # of each calibrated pass, of which the median counts
_MOST_SIDE = 4096  # of a calibrated product
_MOST_IMAGES = 64  # in a calibrated batch on a CPU
_MOST_OPERATIONS = 2e10  # likewise, so that a pass takes a few tenths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One timed pass of a batch."""

    architecture: Architecture
    training: bool
    captured: bool
    batch: int
    seconds: float


class ThisDevice(Device):
    """The device that the networks are on; each pass is timed when first needed.

    Replays are timed with the copies around them, so that `Work.launches` are no extra.
    """

    def __init__(self, networks: Networks, clock: Clock) -> None:
        launch = replay = _measured_launch(clock)
        if captures(clock.device):
            replay = _measured_launch(clock, captured=True)
        rates = measure_rates(clock)
        with products_in_tf32():
            tf32 = large_product_rate(torch.float32, clock)
        roofline = Roofline(rates=rates, launch=launch, replay=replay, tf32=tf32)
        super().__init__(device_name(clock.device), networks, roofline)
        self.clock = clock
        self._timed: dict[tuple[Architecture, bool, bool, int], Calibration] = {}
        self._rates: dict[tuple[Precision, int, int, int], float] = {}

    @classmethod
    def of(cls, suite: Suite, compute: Compute) -> "ThisDevice":
        """Return the device that a suite would be run on, ready to be calibrated."""
        networks = networks_of(
            suite,
            compute.precision,
            memory_format=compute.memory_format,
            device=compute.device,
            max_memory=compute.max_memory,
        )
        return cls(networks, Clock(device=compute.device))

    @property
    def captures(self) -> bool:
        """Until a capture has failed."""
        return captures(self.clock.device)

    @property
    def calibrations(self) -> list[Calibration]:
        """All passes timed so far."""
        return list(self._timed.values())

    def pass_seconds(
        self, architecture: Architecture, batch: int, *, training: bool, captured: bool = False
    ) -> float:
        """See `Device.pass_seconds`; the time of a large batch is scaled up from a smaller one."""
        few = batch
        if self.clock.device.type == "cpu":
            few = _round(min(batch, _MOST_IMAGES, self._affordable(architecture)))
        captured = captured and training and self.captures
        key = headless(architecture), training, captured, few
        if key not in self._timed:
            network, shape = self.networks.of(architecture), self.networks.new_network.shape
            run = _new_pass(network, shape, few, training=training, captured=captured)
            captured = captured and self.captures  # no longer, if this capture failed
            self._timed[key] = Calibration(
                architecture=architecture,
                training=training,
                captured=captured,
                batch=few,
                seconds=self._timing(run),
            )
        return self._timed[key].seconds * batch / few

    def product_rate(self, precision: Precision, shape: tuple[int, int, int] | None) -> float:
        """See `Device.product_rate`; timed once per shape, with large sides cut."""
        if shape is None:
            return self.roofline.product_rate(precision)
        k, n, p = (min(side, _MOST_SIDE) for side in shape)
        key = precision, k, n, p
        if key not in self._rates:
            like = torch.ones((), dtype=DTYPES[precision], device=self.clock.device)
            left, right = like.new_ones(k, n), like.new_ones(n, p)
            self._rates[key] = 2 * k * n * p / self._timing(lambda: left @ right)
        return self._rates[key]

    def _timing(self, run: Callable[[], object]) -> float:
        run()
        return median(self.clock.seconds(run) for _ in range(_TRIALS))

    def _affordable(self, architecture: Architecture) -> int:
        """Return how many images a training step can take in a few tenths of a second."""
        operations = sum(self.networks.cost(architecture, 1, training=True).operations.values())
        return max(2, int(_MOST_OPERATIONS / operations))


def _round(batch: int) -> int:
    """Return the nearest power of two, so that few batches have to be timed."""
    return max(2, 1 << round(math.log2(batch)))


def _new_pass(
    network: Network, shape: ImageShape, batch: int, *, training: bool, captured: bool
) -> Callable[[], object]:
    """Return a pass of random images through a network, whose weights a training step changes."""
    stream = rng.generator("plan", "images")
    images = torch.rand(batch, shape.c, shape.h, shape.w, generator=stream).to(network.mean.device)
    if training:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9, fused=True)
        step = _new_step(network, optimizer, captured=captured)
        for _ in range(CALLS_TO_CAPTURE * captured):
            step(images)
        return partial(step, images)
    frozen = network.eval().frozen()

    def forward() -> None:
        with torch.no_grad():
            frozen.features(images)

    return forward


def _new_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, *, captured: bool
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def step(images: Tensor) -> tuple[()]:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
        optimizer.step()
        return ()

    return CapturedStep(step, partial(tensors_of, network, optimizer)) if captured else step


def _measured_launch(clock: Clock, *, captured: bool = False) -> float:
    """Return how long an operator on tiny tensors takes, with its share of Python's overhead.

    In a captured step that includes copies of inputs.
    """
    with torch.random.fork_rng(devices=[]):
        layers = [layer for _ in range(_TINY_LAYERS) for layer in (nn.Linear(8, 8), nn.ReLU())]
        network = nn.Sequential(*layers).to(clock.device)
    images = torch.ones(8, 8, device=clock.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9)
    step = _new_step(network, optimizer, captured=captured)

    def run() -> None:
        for _ in range(_TINY_STEPS):
            step(images)

    eager = partial(_new_step(network, optimizer, captured=False), images)
    run()
    num = _TINY_STEPS * len(operators_of(eager))
    return median(clock.seconds(run) for _ in range(_TRIALS)) / num
