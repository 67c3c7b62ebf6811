"""Freed memory stays with the process: counted in page faults, in processes of their own."""

import subprocess
import sys

import pytest

from benchmark.allocation import keep_freed_memory

SCRIPT = """
import resource, sys
from benchmark import allocation
from benchmark.allocation import keep_freed_memory, release_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def of_older_glibc(name):
    found = of_this_glibc(name)
    # malloc.c, do_set_mmap_threshold: at most HEAP_MAX_SIZE / 2
    refused = lambda what, size: what == -3 and size > 2**25
    older = lambda what, size: 0 if refused(what, size) else found(what, size)
    return older if name == "mallopt" else found

if sys.argv[1] == "keep on older":
    of_this_glibc, allocation._of_glibc = allocation._of_glibc, of_older_glibc
if sys.argv[1] != "usual":
    assert keep_freed_memory()
b"x" * 2**26
before = faults()
for _ in range(10):
    b"x" * 2**26
kept = resident()
release_freed_memory()
print(faults() - before, kept - resident())
"""


def run(mode):
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True
    )
    return map(int, out.stdout.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc alone")
@pytest.mark.parametrize("mode", ["keep", "keep on older"])
def test_blocks_are_used_again_without_faulting_in_their_pages(mode):
    usual, _ = run("usual")
    if usual < 1000 or not keep_freed_memory():
        pytest.skip("pages are huge here, or the C library is another")
    kept, released = run(mode)
    assert kept < usual / 5
    assert released > 2**25  # half of the last block at least went back when asked for
