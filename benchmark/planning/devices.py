"""How long work takes on a device: this one, by calibration, or a named one, by data sheet.

This device: every network is timed on a small batch, in a forward pass and in a training step, so
that the time per image includes norms, activations and whatever else operation counts miss. The
rest uses the rates of `benchmark.timing`.

A named device is not measured. Each operator of a network is expected to take the longest of three
times: its operations at an attainable share of peak throughput, its bytes at an attainable share of
the bandwidth, and one launch, or its share of a graph's replay.
"""

import math
from abc import ABC, abstractmethod
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
from benchmark.memory import share_of
from benchmark.network import DTYPES, MEMORY_FORMATS, Network, Precision
from benchmark.operators import Operator, operators_of
from benchmark.planning.network_cost import PassCost
from benchmark.planning.networks import Networks, headless, networks_of
from benchmark.planning.sheets import SHEETS, Sheet
from benchmark.provenance import device_name
from benchmark.spec import ImageShape, unknown
from benchmark.tf32 import products_in_tf32
from benchmark.timing import RATES, Clock, Operations, Rates, large_product_rate, measure_rates
from benchmark.workload import Architecture, Work

# Assumed shares of data sheet values that eager code attains: matrix products and convolutions of
# the sizes that occur here, memory-bound operators; and the least time of one operator call, and of
# one in a CUDA graph.
_PRODUCT_SHARE = 0.6
_CONVOLUTION_SHARE = 0.4
_BANDWIDTH_SHARE = 0.7
_LAUNCH_SECONDS = 7e-6
_REPLAY_SECONDS = 1.5e-6

_TINY_LAYERS, _TINY_STEPS = 8, 20  # of a network that measures launches
_TRIALS = 3  # of each calibrated pass, of which the median counts
_MOST_SIDE = 4096  # of a calibrated product
_MOST_IMAGES = 64  # in a calibrated batch on a CPU
_MOST_OPERATIONS = 2e10  # likewise, so that a pass takes a few tenths of a second


def assumptions() -> str:
    """Return in words what is assumed about devices known only by their data sheets."""
    return (
        f"matrix products are assumed to attain {_PRODUCT_SHARE:.0%} of the vendor's peak, "
        f"convolutions {_CONVOLUTION_SHARE:.0%}, and memory {_BANDWIDTH_SHARE:.0%} of the vendor's "
        f"bandwidth; an operator takes at least {1e6 * _LAUNCH_SECONDS:g} us, or "
        f"{1e6 * _REPLAY_SECONDS:g} us in a CUDA graph, around which inputs and outputs are copied"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Rates that bound operators one by one.

    Attributes:
        rates: operations and bytes per second.
        launch: seconds of the smallest operator.
        replay: likewise, in a captured step.
        tf32: operations per second of large matrix products in TF32, on a CPU in fp32.
    """

    rates: Rates
    launch: float
    replay: float
    tf32: float

    @classmethod
    def of(cls, sheet: Sheet) -> "Roofline":
        """Return the roofline of a device; fp32 convolutions run in TF32 by default."""
        peaks: Operations = {
            "matrix product fp32": _PRODUCT_SHARE * sheet.fp32,
            "matrix product bf16": _PRODUCT_SHARE * sheet.bf16,
            "convolution fp32": _CONVOLUTION_SHARE * sheet.tf32,
            "convolution bf16": _CONVOLUTION_SHARE * sheet.bf16,
        }
        return cls(
            rates=Rates(
                operations={rate: 1e12 * peak for rate, peak in peaks.items()},
                copied=1e12 * _BANDWIDTH_SHARE * sheet.bandwidth,
            ),
            launch=_LAUNCH_SECONDS,
            replay=_REPLAY_SECONDS,
            tf32=1e12 * _PRODUCT_SHARE * sheet.tf32,
        )

    def seconds(self, cost: PassCost, *, captured: bool = False) -> float:
        """Return the total time of a pass's operators."""
        least = self.least(captured=captured)
        return sum(max(least, self._operator(operator)) for operator in cost.operators)

    def least(self, *, captured: bool) -> float:
        """Return the seconds of the smallest operator."""
        return self.replay if captured else self.launch

    def _operator(self, operator: Operator) -> float:
        arithmetic = 0.0
        if operator.rate is not None:
            arithmetic = operator.operations / self.rates.operations[operator.rate]
        return max(arithmetic, operator.num_bytes / self.rates.copied)

    def product_rate(self, precision: Precision) -> float:
        """Return the operations per second of large matrix products."""
        return float(self.rates.operations[RATES["matrix product", precision]])


class Device(ABC):
    """A place that work is planned for.

    Attributes:
        name: what it is called.
        reported: the device's name in its rows.
        networks: those that images pass through.
        roofline: its rates.
    """

    def __init__(self, name: str, networks: Networks, roofline: Roofline) -> None:
        self.name, self.networks, self.roofline = name, networks, roofline
        self.reported = name
        self._known: dict[Work, float] = {}

    @property
    @abstractmethod
    def captures(self) -> bool:
        """Whether steps are replayed from CUDA graphs."""

    @abstractmethod
    def pass_seconds(
        self, architecture: Architecture, batch: int, *, training: bool, captured: bool = False
    ) -> float:
        """Return how long a training step, or a forward pass alone, of a batch takes."""

    def seconds(self, work: Work) -> float:
        """Return how long an item of work takes, without what the teacher represents."""
        if work not in self._known:
            self._known[work] = self._seconds(work)
        return self._known[work]

    def product_rate(self, precision: Precision, shape: tuple[int, int, int] | None) -> float:
        """Return operations per second of products, rows x inner x columns; None: large ones."""
        del shape
        return self.roofline.product_rate(precision)

    def _seconds(self, work: Work) -> float:
        moved = work.num_bytes / self.roofline.rates.copied
        total = moved + work.operators * self.roofline.least(captured=work.captured)
        products: dict[Precision, int | float] = {"fp32": work.products, "bf16": work.bf16_products}
        for precision, operations in products.items():
            if operations:
                total += operations / self.product_rate(precision, work.shape)
        total += work.tf32_products / self.roofline.tf32
        for images, training in ((work.forward, False), (work.training, True)):
            if work.network is not None and images:
                total += (images / work.batch) * self.pass_seconds(
                    work.network, work.batch, training=training, captured=work.captured
                )
        return total


class NamedDevice(Device):
    """A device that is known by its data sheet alone."""

    def __init__(self, name: str, networks: Networks) -> None:
        """Find a device by its name.

        Raises:
            UsageError: it is not in `SHEETS`.
        """
        sheet = _sheet(name)
        super().__init__(sheet.title, networks, Roofline.of(sheet))
        self.reported = sheet.reported

    @classmethod
    def of(cls, name: str, suite: Suite, *, max_memory: int | None = None) -> "NamedDevice":
        """Return a named device, for the networks of a suite: bf16 and channels-last by default.

        Args:
            name: one of `SHEETS`.
            suite: the suite to plan.
            max_memory: bytes that a stage may take; None means the default of `run`.

        Raises:
            UsageError: there is no such device.
        """
        networks = networks_of(
            suite,
            suite.precision or "bf16",
            memory_format=MEMORY_FORMATS[suite.layout or "channels-last"],
            max_memory=max_memory or share_of(1e9 * _sheet(name).memory),
            elsewhere=True,
        )
        return cls(name, networks)

    @property
    def captures(self) -> bool:
        """Any named device does."""
        return True

    def pass_seconds(
        self, architecture: Architecture, batch: int, *, training: bool, captured: bool = False
    ) -> float:
        """See `Device.pass_seconds`."""
        cost = self.networks.cost(architecture, batch, training=training)
        return self.roofline.seconds(cost, captured=captured)

    def _seconds(self, work: Work) -> float:
        return super()._seconds(work) + work.launches * self.roofline.launch


def _sheet(name: str) -> Sheet:
    if name not in SHEETS:
        raise unknown("device", name, [*SHEETS, "auto", "cpu", "cuda"])
    return SHEETS[name]


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
            run = _Run(self.networks.of(architecture), self.networks.new_network.shape, few)
            step: Callable[[], object] = run.forward
            if training:
                step = run.captured() if captured else run.training
            captured = captured and self.captures  # no longer, if this capture failed
            self._timed[key] = Calibration(
                architecture=architecture,
                training=training,
                captured=captured,
                batch=few,
                seconds=self._timing(step),
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


class _Run:
    """Passes of a batch of random images through a network; training steps change its weights."""

    def __init__(self, network: Network, shape: ImageShape, batch: int) -> None:
        device = network.mean.device
        stream = rng.generator("plan", "images")
        images = torch.rand(batch, shape.c, shape.h, shape.w, generator=stream)
        self.network, self.images = network, images.to(device)
        self.frozen = network.eval().frozen()
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9, fused=True)

    def forward(self) -> None:
        with torch.no_grad():
            self.frozen.features(self.images)

    def training(self) -> None:
        self._descend(self.images)

    def captured(self) -> Callable[[], object]:
        """Return a training step that has been captured already."""
        step = CapturedStep(self._descend, partial(tensors_of, self.network, self.optimizer))
        for _ in range(CALLS_TO_CAPTURE):
            step(self.images)
        return partial(step, self.images)

    def _descend(self, images: Tensor) -> tuple[()]:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.network(images).square().mean().backward()
        self.optimizer.step()
        return ()


def _measured_launch(clock: Clock, *, captured: bool = False) -> float:
    """Return how long an operator on tiny tensors takes, with its share of Python's overhead.

    In a captured step that includes copies of inputs.
    """
    with torch.random.fork_rng(devices=[]):
        layers = [layer for _ in range(_TINY_LAYERS) for layer in (nn.Linear(8, 8), nn.ReLU())]
        network = nn.Sequential(*layers).to(clock.device)
    images = torch.ones(8, 8, device=clock.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9)

    def step(images: Tensor) -> tuple[()]:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
        return ()

    take: Callable[[Tensor], object] = step
    if captured:
        take = CapturedStep(step, partial(tensors_of, network, optimizer))

    def run() -> None:
        for _ in range(_TINY_STEPS):
            take(images)

    run()
    num = _TINY_STEPS * len(operators_of(partial(step, images)))
    return median(clock.seconds(run) for _ in range(_TRIALS)) / num
