"""Progress bars with the time left, on a terminal only; those of several processes are stacked."""

from multiprocessing.synchronize import RLock
from typing import Any

from tqdm import tqdm

_line = 0


def bar(*, total: int, description: str, initial: int = 0, leave: bool = False) -> "tqdm[Any]":
    """Return a bar on stderr, disabled unless that is a terminal."""
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        leave=leave,
        dynamic_ncols=True,
        disable=None,
        position=_line or None,
    )


def share_terminal(lock: RLock, line: int) -> None:
    """Place this process's bars `line` lines below those of the process that owns `lock`."""
    global _line
    _line = line
    tqdm.set_lock(lock)
