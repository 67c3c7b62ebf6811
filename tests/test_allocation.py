"""Freed memory stays with the process: counted in page faults, in processes of their own."""

import subprocess
import sys

import pytest

from benchmark.allocation import keep_freed_memory

SCRIPT = """
import resource, sys
from benchmark.allocation import keep_freed_memory, release_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if sys.argv[1] == "keep":
    keep_freed_memory()
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
def test_blocks_are_used_again_without_faulting_in_their_pages():
    usual, _ = run("usual")
    if usual < 1000 or not keep_freed_memory():
        pytest.skip("pages are huge here, or the C library is another")
    kept, released = run("keep")
    assert kept < usual / 5
    assert released > 2**25  # half of the last block at least went back when asked for
