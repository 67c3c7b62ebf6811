"""Kernels: hot code paths, each timed against its plain twin and against the machine's floor.

The floor of a kernel (its roofline bound) is the time of its arithmetic at the rates of a large
matrix product and a large convolution, or of its bytes at the rate of a large copy, whichever is
longer. The rates are measured on the same device, in the same run and precision.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

Outcome = tuple[Tensor, ...]

Rate = Literal["matrix product fp32", "matrix product bf16", "convolution fp32", "convolution bf16"]

Operations = Mapping[Rate, int | float]

_TRIALS = 4  # of each rate; the fastest counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel, made by a plug-in of kind `kernels` for a `Compute`, full size or small.

    Attributes:
        shape: the sizes that matter, in words.
        fast: runs the library's own code, from the same initial state in every call.
        plain: its twin, a straightforward implementation on the same inputs: fp32, default layout,
            plain framework code.
        operations: additions and multiplications of `fast`, by the rate that bounds them.
        num_bytes: that it must read or write, each tensor once per pass.
        twin_is_counted: whether PyTorch's counter knows nearly all operations of `plain`: it leaves
            out solvers, products with a vector, and other libraries.
        tolerance: the largest allowed difference of outputs, relative to their norm.
        tried: which optimisations were tried, and their effect, failures included.
    """

    shape: str
    fast: Callable[[], Outcome]
    plain: Callable[[], Outcome]
    operations: Operations
    num_bytes: int | float
    twin_is_counted: bool = True
    tolerance: float
    tried: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one callable, in the order of its repetitions."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)


CLOCKS = {  # in words
    "processor": "CPU time of the single thread, so that other processes do not count",
    "wall": "wall-clock time",
    "events": "between two events on the device, with nothing else running",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Measures time on one device; on a GPU between two events, with nothing else running.

    With one CPU thread it is CPU time, which leaves out other processes; with several, wall-clock
    time.
    """

    device: torch.device

    @property
    def name(self) -> str:
        """The kind of time that it measures."""
        if self.device.type == "cuda":
            return "events"
        return "processor" if torch.get_num_threads() == 1 else "wall"

    def seconds(self, run: Callable[[], object]) -> float:
        """Return how long one call takes."""
        if self.name == "events":
            with torch.cuda.device(self.device):  # events are recorded on its stream
                torch.cuda.synchronize()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                run()
                end.record()
                torch.cuda.synchronize()
            return float(begin.elapsed_time(end)) / 1e3
        now = time.process_time if self.name == "processor" else time.perf_counter
        started = now()
        run()
        return now() - started


def interleaved(
    timers: Sequence[Callable[[], float]],
    *,
    seconds: float = 2.0,
    least: int = 3,
    most: int = 30,
) -> list[Timing]:
    """Time warmed-up callables in turn, so that conditions are the same for all.

    Args:
        timers: each runs one of them once and returns how long that took.
        seconds: after which no further round starts.
        least: minimum number of rounds.
        most: maximum number of rounds.
    """
    rounds: list[list[float]] = []
    while len(rounds) < least or (len(rounds) < most and sum(map(sum, rounds)) < seconds):
        rounds.append([timer() for timer in timers])
    return [Timing(seconds=taken) for taken in zip(*rounds, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a device reaches: operations/s of large products and convolutions, bytes/s of a copy."""

    operations: Operations
    copied: float

    def arithmetic(self, operations: Operations) -> float:
        """Return the seconds that operations take at these rates."""
        return math.fsum(n / self.operations[rate] for rate, n in operations.items())

    def faster(self, others: "Rates") -> "Rates":
        """Return the higher of two measurements of each rate."""
        return Rates(
            operations={
                rate: max(n, others.operations[rate]) for rate, n in self.operations.items()
            },
            copied=max(self.copied, others.copied),
        )

    def floor(self, kernel: Kernel) -> "Floor":
        """Return the least time that a kernel can take here."""
        arithmetic = self.arithmetic(kernel.operations)
        memory = kernel.num_bytes / self.copied
        bound: Literal["arithmetic", "memory"] = "arithmetic" if arithmetic > memory else "memory"
        return Floor(seconds=max(arithmetic, memory), bound=bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A kernel's least time, and what bounds it."""

    seconds: float
    bound: Literal["arithmetic", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The measurement of one kernel.

    Attributes:
        rates: of the device.
        of_twin: operations of the twin.
        deviation: of the outputs.
    """

    name: str
    kernel: Kernel = field(repr=False)
    fast: Timing
    plain: Timing
    rates: Rates
    of_twin: Operations
    deviation: float

    @property
    def floor(self) -> Floor:
        """The least time that the kernel can take."""
        return self.rates.floor(self.kernel)

    @property
    def predicted(self) -> float | None:
        """The ratio that operations alone would give, those of the twin at its own rates.

        None if the kernel has no operations, or the twin's are not counted.
        """
        own = self.rates.arithmetic(self.kernel.operations)
        if not own or not self.kernel.twin_is_counted:
            return None
        return self.rates.arithmetic(self.of_twin) / own

    @property
    def ratio(self) -> float:
        """Time of the plain twin over that of the kernel."""
        return self.plain.median / self.fast.median

    @property
    def times_floor(self) -> float:
        """Time of the kernel over its floor."""
        return self.fast.median / self.floor.seconds


def measure(
    name: str,
    kernel: Kernel,
    *,
    rates: Rates,
    clock: Clock,
    count: Callable[[Callable[[], object]], Operations],
    plain: Callable[[], float] | None = None,
) -> Measurement:
    """Compare the outputs of a kernel and its twin, which warms them up, then time both.

    Args:
        name: of the kernel.
        kernel: on the clock's device.
        rates: of the device.
        clock: of the device.
        count: runs a function, and returns its operations.
        plain: times one run of the twin somewhere else; here by default.
    """
    outcome: list[Outcome] = []
    operations = count(lambda: outcome.append(kernel.plain()))
    found = deviation(kernel.fast(), outcome[0])
    fast, twin = interleaved(
        (partial(clock.seconds, kernel.fast), plain or partial(clock.seconds, kernel.plain))
    )
    return Measurement(
        name=name,
        kernel=kernel,
        fast=fast,
        plain=twin,
        rates=rates,
        of_twin=operations,
        deviation=found,
    )


def deviation(actual: Outcome, expected: Outcome) -> float:
    """Return the largest relative error over all tensors, each in terms of its expected norm.

    Raises:
        ValueError: their numbers or shapes differ.
    """
    if [x.shape for x in actual] != [x.shape for x in expected]:
        raise ValueError("the outcomes of fast and plain differ in shape")
    worst = 0.0
    for x, y in zip(actual, expected, strict=True):
        difference, norm = (t.detach().double().norm() for t in (x - y, y))
        relative = difference / norm if norm > 0 else difference
        worst = max(worst, math.inf if relative.isnan() else float(relative))
    return worst


def measure_rates(clock: Clock) -> Rates:
    """Measure what the device reaches: products of square matrices, a convolution, and a copy."""
    large = clock.device.type != "cpu"
    operations: dict[Rate, float] = {}
    products: tuple[tuple[Rate, torch.dtype], ...] = (
        ("matrix product fp32", torch.float32),
        ("matrix product bf16", torch.bfloat16),
    )
    for rate, dtype in products:
        operations[rate] = large_product_rate(dtype, clock)
    convolutions: tuple[tuple[Rate, torch.dtype], ...] = (
        ("convolution fp32", torch.float32),
        ("convolution bf16", torch.bfloat16),
    )
    for rate, dtype in convolutions:
        operations[rate] = _convolution_rate(1024 if large else 32, dtype, clock)
    numbers = torch.ones(2**28 if large else 2**24, device=clock.device)
    copied = 2 * 4 * len(numbers) / _fastest(torch.empty_like(numbers).copy_, numbers, clock)
    return Rates(operations=operations, copied=copied)


def large_product_rate(dtype: torch.dtype, clock: Clock) -> float:
    """Measure the operations per second of a product of large square matrices."""
    side = 1024 if clock.device.type == "cpu" else 8192
    matrix = torch.ones(side, side, device=clock.device, dtype=dtype)
    return 2 * side**3 / _fastest(matrix.mm, matrix, clock)


def _convolution_rate(batch: int, dtype: torch.dtype, clock: Clock) -> float:
    """Return the forward rate of a middle layer of the default ConvNet in channels-last."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Conv2d(128, 256, 3, padding=1).requires_grad_(False)
    layer.to(clock.device, dtype).to(memory_format=torch.channels_last)
    images = torch.ones(batch, 128, 16, 16, device=clock.device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    return 2 * batch * 16 * 16 * layer.weight.numel() / _fastest(layer, images, clock)


def _fastest(run: Callable[[Tensor], object], argument: Tensor, clock: Clock) -> float:
    run(argument)
    return min(clock.seconds(lambda: run(argument)) for _ in range(_TRIALS))
