"""Clocks, and the rates of a device: of large products, convolutions and copies.

Rates are measured on the same device and in the same run as what is compared with them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmark import rng
from benchmark.network import DTYPES, Precision

Rate = Literal["matrix product fp32", "matrix product bf16", "convolution fp32", "convolution bf16"]

RATES: Mapping[tuple[Literal["matrix product", "convolution"], Precision], Rate] = {
    ("matrix product", "fp32"): "matrix product fp32",
    ("matrix product", "bf16"): "matrix product bf16",
    ("convolution", "fp32"): "convolution fp32",
    ("convolution", "bf16"): "convolution bf16",
}

Operations = Mapping[Rate, int | float]

_IMAGES, _IMAGES_OF_A_GPU = 32, 1024  # of a convolution: enough for launches not to count
_LEAST, _MOST = 3, 30  # rounds of timings in turn
_TRIALS = 4  # of each rate; the fastest counts
_LONG = 0.5  # seconds of a first run, beside which whatever happens once does not count


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
    timers: Sequence[Callable[[], float]], *, seconds: float = 2.0
) -> list[tuple[float, ...]]:
    """Time warmed-up callables in turn, so that conditions are the same for all.

    The seconds of each are in the order of its repetitions.

    Args:
        timers: each runs one of them once and returns how long that took.
        seconds: after which no further round starts.
    """
    rounds: list[list[float]] = []
    while len(rounds) < _LEAST or (len(rounds) < _MOST and sum(map(sum, rounds)) < seconds):
        rounds.append([timer() for timer in timers])
    return list(zip(*rounds, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a device reaches: operations/s of large products and convolutions, bytes/s of a copy."""

    operations: Operations
    copied: float

    def arithmetic(self, operations: Operations) -> float:
        """Return the seconds that operations take at these rates."""
        return math.fsum(n / self.operations[rate] for rate, n in operations.items())

    def factor(self, others: "Rates") -> float:
        """Return the largest factor by which any rate differs."""
        pairs = [(n, others.operations[rate]) for rate, n in self.operations.items()]
        return max(max(a / b, b / a) for a, b in [*pairs, (self.copied, others.copied)])

    def faster(self, others: "Rates") -> "Rates":
        """Return the higher of two measurements of each rate."""
        return Rates(
            operations={
                rate: max(n, others.operations[rate]) for rate, n in self.operations.items()
            },
            copied=max(self.copied, others.copied),
        )


def measure_rates(clock: Clock) -> Rates:
    """Measure what the device reaches: products of square matrices, a convolution, and a copy."""
    operations: dict[Rate, float] = {
        RATES["matrix product", precision]: large_product_rate(dtype, clock)
        for precision, dtype in DTYPES.items()
    }
    for precision, dtype in DTYPES.items():
        operations[RATES["convolution", precision]] = _convolution_rate(dtype, clock)
    numbers = torch.ones(2**24 if clock.device.type == "cpu" else 2**28, device=clock.device)
    copied = 2 * 4 * len(numbers) / _fastest(torch.empty_like(numbers).copy_, numbers, clock)
    return Rates(operations=operations, copied=copied)


def large_product_rate(dtype: torch.dtype, clock: Clock) -> float:
    """Measure the operations per second of a product of large square matrices."""
    side = 1024 if clock.device.type == "cpu" else 8192
    matrix = _normal(side, side, device=clock.device).to(dtype)
    return 2 * side**3 / _fastest(matrix.mm, matrix, clock)


def middle_layer(
    device: torch.device, memory_format: torch.memory_format
) -> tuple[nn.Conv2d, Float[Tensor, "b c h w"]]:
    """Return a middle layer of the default ConvNet, and images for it."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Conv2d(128, 256, 3, padding=1)
    num_images = _IMAGES if device.type == "cpu" else _IMAGES_OF_A_GPU
    images = _normal(num_images, 128, 16, 16, device=device)
    layer.to(device).to(memory_format=memory_format)
    return layer, images.contiguous(memory_format=memory_format)


def _normal(*shape: int, device: torch.device) -> Float[Tensor, "..."]:
    """Return random numbers: on equal ones a processor draws less power, and so runs faster."""
    return torch.randn(shape, generator=rng.generator("rates", device=device), device=device)


def _convolution_rate(dtype: torch.dtype, clock: Clock) -> float:
    """Return the rate of a forward pass in channels-last."""
    layer, images = middle_layer(clock.device, torch.channels_last)
    layer.requires_grad_(False).to(dtype)
    operations = 2 * len(images) * images.shape[2:].numel() * layer.weight.numel()
    return operations / _fastest(layer, images.to(dtype), clock)


def _fastest(run: Callable[[Tensor], object], argument: Tensor, clock: Clock) -> float:
    """Return the shortest of several runs after a first one.

    If that was long on a CPU, it is the only one: without bf16 instructions, a product in bf16
    takes seconds. On a GPU it may have loaded libraries.
    """
    first = clock.seconds(lambda: run(argument))
    if first > _LONG and clock.device.type == "cpu":
        return first
    return min(clock.seconds(lambda: run(argument)) for _ in range(_TRIALS))
