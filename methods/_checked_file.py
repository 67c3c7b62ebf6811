"""Files of by-products with a checksum: damaged ones count as missing and are recreated."""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from benchmark.files import atomic
from benchmark.spec import Loop


def kept(
    file: Path, make: Callable[[], Mapping[str, Tensor]], checkpoint: Loop
) -> Mapping[str, Tensor]:
    """Return an earlier run's result from a file, charging its time, or make and store it.

    Processes that need the same file at the same time make it once.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with FileLock(file.with_suffix(".lock")):
        waited = time.monotonic() - started
        if found := read_checked(file):
            charge_for(file, checkpoint, waited=waited)
            return found
        made = {name: tensor.cpu() for name, tensor in make().items()}
        write_checked(file, made, seconds=time.monotonic() - started - waited)
    return made


def read_checked(file: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a file made by `write_checked`, or None if missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            checksum = (opened.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensors if checksum == _checksum(tensors) else None


def charge_for(file: Path, checkpoint: Loop, *, waited: float) -> None:
    """Charge the time that others took to make a file, minus the time spent waiting for them."""
    checkpoint.charge(max(0.0, _read_seconds(file) - waited))


def _read_seconds(file: Path) -> float:
    """Return how long it took to make the content of a file; 0 if it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            return float((opened.metadata() or {})["seconds"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0.0


def write_checked(file: Path, tensors: Mapping[str, Tensor], *, seconds: float) -> None:
    """Write CPU tensors atomically, with the time that it took to make them."""
    metadata = {"sha256": _checksum(tensors), "seconds": f"{seconds:.3f}"}
    with atomic(file) as temporary:
        temporary.write_bytes(save(dict(tensors), metadata=metadata))


def fingerprint(*parts: Any) -> str:
    """Return a hash of tensors, by their bytes, and of anything else, by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(part.detach().cpu().contiguous().numpy().data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\x1f")
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(*(part for name in sorted(tensors) for part in (name, tensors[name])))
