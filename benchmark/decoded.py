"""Decoded splits on disk: each is one memory-mapped array, so a second run reads no image files."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from benchmark.files import atomic, expect_room, lock, write_text
from benchmark.progress import bar
from benchmark.source_code import code_of
from benchmark.spec import Dataset, LabelledImages, Records, Split, UsageError

_DECODING = 1  # increment it when decoding gives different pixels
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError)  # missing, or incomplete


def decoded(folder: Path, records: Records, size: int, *, description: str) -> LabelledImages:
    """Return the split that is kept in a folder, decoded first if it is missing or incomplete.

    Of several processes one decodes it, and the others wait.

    Raises:
        UsageError: images or labels do not fit.
        OSError: the disk has no room, or files cannot be written.
    """
    with suppress(*_UNREADABLE):
        return _read(folder)
    with lock(folder):
        try:
            return _read(folder)
        except _UNREADABLE:
            _write(folder, records, size, description=description)
    return _read(folder)


def split_key(dataset: Dataset, split: Split, records: Records, *, size: int) -> str:
    """Return a name unique to the split and the state of its files and code.

    Raises:
        UsageError: a file cannot be read.
    """
    kind = type(dataset)
    code = [kind.__module__, kind.__name__, code_of(kind.__module__)]
    made_of = [*code, split, size, _DECODING, list(records.classes)]
    digest = hashlib.sha256(json.dumps(made_of).encode())
    for file in records.files:
        try:
            state = _stamp(file)
        except OSError as error:
            raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
        digest.update(f"\n{file}\0{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _stamp(file: str | Path) -> list[int]:
    """Return the size and the time of a file, which is cheap even for 100 000 files."""
    status = os.stat(file)  # noqa: PTH116
    return [status.st_size, status.st_mtime_ns]


def _read(folder: Path) -> LabelledImages:
    """Open a cached split, or raise one of `_UNREADABLE`."""
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    stamps = {file: _stamp(folder / file) for file in facts["stamps"]}
    if stamps != facts["stamps"]:
        raise ValueError(f"{folder}: changed since it was written")
    return LabelledImages(
        # Copy on write: PyTorch expects writable memory, and the cache is protected from changes.
        images=torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c")),
        labels=torch.from_numpy(np.load(folder / "labels.npy")),
        fingerprint=facts["fingerprint"],
    )


def _write(folder: Path, records: Records, size: int, *, description: str) -> None:
    """Decode a split into `folder`; facts.json is written last and marks it as complete."""
    labels, batches = records.decode(size)
    shape = (len(labels), 3, size, size)
    expect_room(folder, math.prod(shape), what=f"{description} into {folder}")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    digest = hashlib.sha256()
    progress = bar(total=len(labels), description=description)
    num_images = 0
    with progress, _cache_file(folder / "images.npy") as file, file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, header)
        for batch in batches:
            if batch.dtype != torch.uint8 or batch.shape[1:] != shape[1:]:
                raise UsageError(
                    f"{description}: images of {tuple(batch.shape[1:])} as {batch.dtype}, expected "
                    f"{shape[1:]} as torch.uint8"
                )
            pixels = batch.numpy().tobytes()
            digest.update(pixels)
            opened.write(pixels)
            num_images += len(batch)
            progress.update(len(batch))
    _expect_fitting(labels, num_images, num_classes=len(records.classes), what=description)
    digest.update(labels.numpy().tobytes())
    with _cache_file(folder / "labels.npy") as file:
        np.save(file, labels.numpy())
    facts = {
        "fingerprint": digest.hexdigest(),
        "stamps": {file: _stamp(folder / file) for file in ("images.npy", "labels.npy")},
    }
    write_text(folder / "facts.json", json.dumps(facts))


def _expect_fitting(
    labels: Int64[Tensor, " n"], num_images: int, *, num_classes: int, what: str
) -> None:
    """Raise a UsageError unless every image has a label and every label a class."""
    if num_images != len(labels):
        raise UsageError(f"{what}: {num_images} images, but {len(labels)} labels")
    if num_images and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UsageError(
            f"{what}: labels from {int(labels.min())} to {int(labels.max())}, "
            f"expected 0 to {num_classes - 1}"
        )


@contextmanager
def _cache_file(file: Path) -> Iterator[Path]:
    """Write `file` atomically, with a fixed time stamp that reveals later changes.

    The time stamp is constant, so that processes that write the same split at the same time (on a
    disk without locks) do not see each other's files as changed.
    """
    with atomic(file) as temporary:
        yield temporary
        os.utime(temporary, (0, 0))
