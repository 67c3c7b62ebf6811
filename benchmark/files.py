"""Files that appear whole or not at all, room for them, and the hash of what is in one."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def content_hash(file: str | Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """Give a temporary path beside `file`, which takes its place when the block ends well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid4().hex}.{file.name}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def expect_writable(file: Path) -> None:
    """Refuse a place where a file cannot be written, before what goes there is made.

    Raises:
        OSError: it is a folder, or is to be below a file or a folder that is not to be changed.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file}: a folder, expected the name of a file")
    nearest = _nearest(file.absolute().parent)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise PermissionError(f"{file}: cannot be written, as {nearest} takes no files")


def expect_room(folder: Path, num_bytes: int, *, what: str) -> None:
    """Refuse what a disk has no room for.

    Raises:
        OSError: `folder`, or where it is to be made, has fewer bytes left.
    """
    free = free_bytes(folder)
    if num_bytes > free:
        raise OSError(f"{what}: {num_bytes / 2**30:.3g} GiB, but {free / 2**30:.3g} are free there")


def free_bytes(place: Path) -> int:
    """Return how much the disk has left on which a file or folder is, or is to be made."""
    return shutil.disk_usage(_nearest(place)).free


def _nearest(place: Path) -> Path:
    """Return a place or, where it is not there, the nearest folder above it that is."""
    return next(path for path in (place, *place.absolute().parents) if path.exists())
