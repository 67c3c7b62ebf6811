"""Files that appear whole or not at all, and the hash of what is in one."""

import hashlib
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
