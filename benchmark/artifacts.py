"""Tensors on disk: one safetensors file with a descriptive header."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from benchmark.files import atomic
from benchmark.spec import COMPONENTS, UsageError

FORMAT = 1


def write(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header atomically."""
    # copies, since safetensors refuses tensors that share their memory
    content = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    with atomic(file) as temporary:
        temporary.write_bytes(save(content, metadata={"header": text}))


def read(file: Path, *, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the header of a file that `write` made.

    Raises:
        UsageError: it is missing, damaged, or has another format.
    """
    header = read_header(file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}, header


def read_header(file: Path) -> Any:
    """Return the header alone; see `read`."""
    if not file.exists():
        raise UsageError(f"{file}: no such file")
    try:
        with safe_open(file, framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error
    try:
        header = json.loads(metadata["header"])
        version = header["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: has no header of this benchmark") from error
    if version != FORMAT:
        raise UsageError(f"{file}: format {version}, expected {FORMAT}")
    return header


def _damaged(file: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{file}: not a whole safetensors file ({error}): delete it to have it recreated"
    )


def count_numbers(tensors: Mapping[str, Tensor]) -> int:
    """Return how many numbers are stored, of any type: what the budget limits."""
    return sum(tensor.numel() for tensor in tensors.values())


def count_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of the stored numbers, without the file's header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def count_by_component(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return numbers and bytes of each kind of stored tensor, see `spec.COMPONENTS`."""
    component = {name: kind for kind, names in COMPONENTS.items() for name in names}
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found.setdefault(component.get(name, "other"), {})[name] = tensor
    return {kind: [count_numbers(part), count_bytes(part)] for kind, part in found.items()}


def compressed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of all tensors, concatenated, after DEFLATE (zlib's level 6)."""
    stream = zlib.compressobj()
    sizes = [len(stream.compress(_bytes(tensor))) for tensor in tensors.values()]
    return sum(sizes) + len(stream.flush())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def fingerprint(file: Path) -> str:
    """Return a hash of a file's tensors, regardless of its header."""
    tensors, _ = read(file)
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()
