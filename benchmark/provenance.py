"""Where a number comes from: code, versions, device, time."""

import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmark import plugins, source_code

_PACKAGE = Path(__file__).resolve().parent
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd")  # best first
_IN_BRACKETS = re.compile(rf" \((?:{'|'.join(_INSTRUCTIONS)})\)(?=, \d+ threads$)")


def provenance(device: torch.device | str) -> dict[str, str]:
    """Return the commit, the versions that numbers depend on, the device, and the time in UTC."""
    return {
        **_code(),
        "device": device_name(device),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def remember_code() -> None:
    """Record the running code and its versions, before its files can change."""
    _code()
    source_code.remember({_PACKAGE.name, *plugins.packages()})


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
    """Return the device's own name; that of a CPU with the best of its instructions, and threads.

    Under a hypervisor, CPUs with and without bf16 instructions can have the same name.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    facts = _cpu_facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    known = {*facts.get("flags", "").split(), *facts.get("Features", "").split()}  # x86, Arm
    best = next((f" ({found})" for found in _INSTRUCTIONS if found in known), "")
    return f"{name}{best}, {torch.get_num_threads()} threads"


def same_device(left: str, right: str) -> bool:
    """Say whether names are of one device, as far as both tell: older ones lack instructions."""
    if all(_IN_BRACKETS.search(name) for name in (left, right)):
        return left == right
    return _IN_BRACKETS.sub("", left) == _IN_BRACKETS.sub("", right)


def _cpu_facts() -> dict[str, str]:
    """Return what Linux says about the first CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


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
