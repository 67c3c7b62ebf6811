"""Kernels: hot code paths, each timed against its plain twin and against the machine's floor.

The floor of a kernel (its roofline bound) is the time of its arithmetic at the rates of a large
matrix product and a large convolution, or of its bytes at the rate of a large copy, whichever is
longer (`benchmark.timing`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Literal

from torch import Tensor

from benchmark.operators import operations_of
from benchmark.timing import Clock, Operations, Rates, interleaved

Outcome = tuple[Tensor, ...]


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

    def floor(self, rates: Rates) -> "Floor":
        """Return the least time that it can take at these rates."""
        arithmetic, memory = rates.arithmetic(self.operations), self.num_bytes / rates.copied
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
        fast, plain: seconds of all repetitions.
        of_twin: operations of the twin.
        deviation: of the outputs.
    """

    name: str
    kernel: Kernel = field(repr=False)
    fast: tuple[float, ...]
    plain: tuple[float, ...]
    of_twin: Operations
    deviation: float

    def predicted(self, rates: Rates) -> float | None:
        """Return the ratio that operations alone would give, those of the twin at its own rates.

        None if the kernel has no operations, or the twin's are not counted.
        """
        own = rates.arithmetic(self.kernel.operations)
        if not own or not self.kernel.twin_is_counted:
            return None
        return rates.arithmetic(self.of_twin) / own

    @property
    def ratio(self) -> float:
        """Time of the plain twin over that of the kernel."""
        return median(self.plain) / median(self.fast)

    def times_floor(self, rates: Rates) -> float:
        """Return the time of the kernel over its floor."""
        return median(self.fast) / self.kernel.floor(rates).seconds


def measure(
    name: str, kernel: Kernel, *, clock: Clock, plain: Callable[[], float] | None = None
) -> Measurement:
    """Compare the outputs of a kernel and its twin, which warms them up, then time both.

    Args:
        name: of the kernel.
        kernel: on the clock's device.
        clock: of the device.
        plain: times one run of the twin somewhere else; here by default.
    """
    operations, expected = operations_of(kernel.plain)
    found = deviation(kernel.fast(), expected)
    fast, twin = interleaved(
        (partial(clock.seconds, kernel.fast), plain or partial(clock.seconds, kernel.plain))
    )
    return Measurement(
        name=name, kernel=kernel, fast=fast, plain=twin, of_twin=operations, deviation=found
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
