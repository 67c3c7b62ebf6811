"""By-products on disk: whole, or not there."""

import resource

import pytest
import torch

from benchmark.methods._checked_file import read_checked, write_checked


@pytest.fixture
def small_files():
    """Let no file be longer than 2 000 bytes, which fails like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_the_disk_refuses_is_named(tmp_path, small_files):
    file = tmp_path / "experts" / "one.safetensors"
    with pytest.raises(OSError, match=r"one\.safetensors"):
        write_checked(file, {"weight": torch.zeros(1000)}, seconds=1.0)
    assert not list(file.parent.iterdir())


def test_a_damaged_file_counts_as_missing(tmp_path):
    file = tmp_path / "one.safetensors"
    assert read_checked(file) is None
    write_checked(file, {"weight": torch.ones(3)}, seconds=1.0)
    assert torch.equal(read_checked(file)["weight"], torch.ones(3))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert read_checked(file) is None
