"""Where a number comes from: code, versions, device, time."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parent


def provenance(device: torch.device | str) -> dict[str, str]:
    """Return the commit, the versions that numbers depend on, the device, and the time in UTC."""
    return {
        **_code(),
        "device": device_name(device),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def remember_code() -> None:
    """Record the versions of the running code, before its files can change."""
    _code()


@cache
def _code() -> dict[str, str]:
    """Return the versions of the running code: read once, as a process keeps its initial code."""
    return {
        "commit": commit(),
        "benchmark": _version("distillation-benchmark"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": _version("timm"),
    }


def commit() -> str:
    """Return the commit of the checkout that this code runs from, or `none`.

    `-dirty` is appended if tracked files other than reports differ from it.
    """
    if not (_PACKAGE.parent / ".git").exists():
        return "none"
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":!reports")
    return f"{head}-dirty" if head and changed else head or "none"


def device_name(device: torch.device | str) -> str:
    """Return the device's own name; that of a CPU with its vector instructions and threads.

    Under a hypervisor, CPUs with and without certain instructions can have the same name.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{_cpu_name()} ({instructions}), {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(_PACKAGE.parent), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def short_commit(name: str) -> str:
    """Return an abbreviated commit, keeping the suffix `-dirty`."""
    head, dash, state = name.partition("-")
    return head[:12] + dash + state
