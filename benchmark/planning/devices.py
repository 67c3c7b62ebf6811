"""How long work takes on a device.

A named device is known by its data sheet alone. Each operator of a network is expected to take the
longest of three times: its operations at an attainable share of peak throughput, its bytes at an
attainable share of the bandwidth, and one launch, or its share of a graph's replay. This machine's
device is measured instead (`benchmark.planning.calibration`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from benchmark.grid import Suite
from benchmark.memory import share_of
from benchmark.network import MEMORY_FORMATS, Precision
from benchmark.operators import Operator
from benchmark.planning.network_cost import PassCost
from benchmark.planning.networks import Networks, networks_of
from benchmark.planning.sheets import SHEETS, Sheet
from benchmark.spec import unknown
from benchmark.timing import RATES, Operations, Rates
from benchmark.workload import Architecture, Work

# Assumed shares of data sheet values that eager code attains: matrix products and convolutions of
# the sizes that occur here, memory-bound operators; and the least time of one operator call, and of
# one in a CUDA graph.
_PRODUCT_SHARE = 0.6
_CONVOLUTION_SHARE = 0.4
_BANDWIDTH_SHARE = 0.7
_LAUNCH_SECONDS = 7e-6
_REPLAY_SECONDS = 1.5e-6


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
    """A device that is known by its data sheet alone.

    Args:
        name: one of `SHEETS`.
        suite: the suite to plan, in bf16 and channels-last by default.
        max_memory: bytes that a stage may take; None means the default of `run`.

    Raises:
        UsageError: there is no such device.
    """

    def __init__(self, name: str, suite: Suite, *, max_memory: int | None = None) -> None:
        if name not in SHEETS:
            raise unknown("device", name, [*SHEETS, "auto", "cpu", "cuda"])
        sheet = SHEETS[name]
        networks = networks_of(
            suite,
            suite.precision or "bf16",
            memory_format=MEMORY_FORMATS[suite.layout or "channels-last"],
            max_memory=max_memory or share_of(1e9 * sheet.memory),
            elsewhere=True,
        )
        super().__init__(sheet.title, networks, Roofline.of(sheet))
        self.reported = sheet.reported

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
