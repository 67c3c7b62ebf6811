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
    """Filled in when the measured block ends.

    Attributes:
        seconds: of wall-clock time, the device's queue drained.
        peak_memory_mib: the most memory in use at once: allocated on a GPU, resident (that of the
            whole process) on the CPU. None where the system cannot tell.
    """

    seconds: float = 0.0
    peak_memory_mib: float | None = None


@contextmanager
def measure(device: torch.device) -> Iterator[Cost]:
    """Measure what happens in the block."""
    cost = Cost()
    forgotten = _reset_peak(device)
    started = time.monotonic()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.monotonic() - started
    cost.peak_memory_mib = _peak_mib(device) if forgotten else None


def _reset_peak(device: torch.device) -> bool:
    """Forget the peak so far; return whether this system can."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    release_freed_memory()
    try:
        _CLEAR_REFS.write_text("5")  # Linux: of the resident set
    except OSError:
        return False
    return True


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024
