"""Atomic writes, locks, checks of disk space, and hashes of files."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from filelock import FileLock


def content_hash(file: str | Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """Yield a temporary path beside `file`, which replaces it if the block succeeds.

    Raises:
        OSError: the system refuses, as on a full disk; it names `file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid4().hex}.{file.name}")
    try:
        yield temporary
        temporary.replace(file)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a file in UTF-8, atomically."""
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def lock(folder: Path) -> FileLock:
    """Return a lock on what a folder holds, so that one process makes it if several need it.

    The folder is made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock")


def expect_writable(file: Path) -> None:
    """Refuse a path that cannot be written, before its content is made.

    Raises:
        OSError: it is a folder or a device, or would be below a file or a read-only folder.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file}: a folder, expected the name of a file")
    if file.exists() and not file.is_file():
        raise OSError(f"{file}: not a regular file, which a new one could replace")
    nearest = _nearest(file.absolute().parent)
    try:
        TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise PermissionError(
            f"{file}: cannot be written, as {nearest} is not a writable folder"
        ) from error


def expect_room(folder: Path, num_bytes: int, *, what: str) -> None:
    """Refuse to write more than a disk has room for.

    Raises:
        OSError: the disk of `folder`, which need not exist yet, has fewer free bytes.
    """
    free = free_bytes(folder)
    if num_bytes > free:
        raise OSError(
            f"{what}: needs {num_bytes / 2**30:.3g} GiB, but only {free / 2**30:.3g} are free"
        )


def free_bytes(place: Path) -> int:
    """Return the free bytes on the disk of a file or folder, which need not exist yet."""
    return shutil.disk_usage(_nearest(place)).free


def _nearest(place: Path) -> Path:
    """Return a path or, if it does not exist, the nearest folder above it that does."""
    return next(path for path in (place, *place.absolute().parents) if path.exists())
