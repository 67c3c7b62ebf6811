"""Keep freed memory for the next tensor: on a CPU, allocation can cost more than arithmetic.

glibc returns large blocks to the system as soon as they are freed, so that every page of the next
tensor is faulted in and zeroed again. That made normalising or pooling 128 MiB, forward and
backward, two to four times slower. No result changes.
"""

import ctypes
import sys
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h: M_TRIM_THRESHOLD, ...
_NEVER, _LARGEST = 2**31 - 1, 2**30  # bytes: of free memory at the end, of a block


def keep_freed_memory() -> bool:
    """Let this process keep freed memory; say whether its C library supports that."""
    if not (mallopt := _of_glibc("mallopt")):
        return False
    # before 2.35 no threshold above 32 MiB is accepted: there no block at all is mapped on its own
    kept = mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_MAX, 0)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _NEVER))


def release_freed_memory() -> None:
    """Return free memory to the system once, for example before measuring the peak."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc; None where the C library is another one."""
    on_linux = sys.platform.startswith("linux")
    return getattr(ctypes.CDLL(None), name, None) if on_linux else None
