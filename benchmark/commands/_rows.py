"""Rows named on the command line."""

from pathlib import Path

from benchmark import rows
from benchmark.rows import Row
from benchmark.spec import UsageError


def rows_at(path: Path, hint: str) -> list[Row]:
    """Return the rows of a file, or of the ``rows.jsonl`` in a folder.

    Raises:
        UsageError: there is no such file (`hint` says what to do about it), or it holds anything
            but rows of this version.
    """
    file = path / "rows.jsonl" if path.is_dir() or not (path.suffix or path.exists()) else path
    if not file.exists():
        raise UsageError(f"{file}: no such file; {hint}")
    return rows.read(file)
