import time
from pathlib import Path

import pytest
import torch

from benchmark import cost
from benchmark.cost import measure

CPU = torch.device("cpu")


def test_seconds_are_those_of_the_block():
    started = time.monotonic()
    with measure(CPU) as spent:
        time.sleep(0.05)
    assert 0.05 <= spent.seconds <= time.monotonic() - started


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can tell")
def test_peak_memory_is_that_of_the_block_and_not_of_an_earlier_one():
    mib = 2**20
    with measure(CPU) as large:
        b"1" * (200 * mib)  # freed at once
    with measure(CPU) as small:
        kept = b"1" * (20 * mib)
    assert len(kept) == 20 * mib
    assert large.peak_memory_mib > small.peak_memory_mib + 100


@pytest.mark.parametrize("file", ["missing/clear_refs", "."], ids=["missing", "not writable"])
def test_a_system_that_cannot_tell_says_nothing(file, monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "_CLEAR_REFS", tmp_path / file)
    with measure(CPU) as spent:
        pass
    assert spent.peak_memory_mib is None


def test_an_error_in_the_block_is_not_swallowed():
    with pytest.raises(ZeroDivisionError), measure(CPU):
        raise ZeroDivisionError
