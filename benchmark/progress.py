"""Progress bars with the time left: on a terminal, and only in the process that owns it."""

from multiprocessing import parent_process
from typing import Any

from tqdm import tqdm


def bar(*, total: int, description: str, initial: int = 0, leave: bool = False) -> "tqdm[Any]":
    """Return a bar on stderr that shows nothing where it would only be noise."""
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        leave=leave,
        dynamic_ncols=True,
        disable=None if parent_process() is None else True,
    )
