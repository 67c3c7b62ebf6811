"""What a stage costs: seconds and peak memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.allocation import release_freed_memory

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Cost:
    """The cost of a measured block, filled in when it ends.

    Attributes:
        seconds: wall-clock time, after synchronising the device.
        peak_memory_mib: peak memory: allocated on a GPU, resident (of the whole process) on the
            CPU. None where the system does not report it.
    """

    seconds: float = 0.0
    peak_memory_mib: float | None = None


@contextmanager
def measure(device: torch.device) -> Iterator[Cost]:
    """Measure the cost of the block."""
    cost = Cost()
    was_reset = _reset_peak(device)
    started = time.monotonic()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.monotonic() - started
    cost.peak_memory_mib = _peak_mib(device) if was_reset else None


def _reset_peak(device: torch.device) -> bool:
    """Reset the peak; return whether this system can."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    release_freed_memory()
    try:
        _CLEAR_REFS.write_text("5")  # Linux: reset the peak of the resident set
    except OSError:
        return False
    return True


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024
