import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import torch

from benchmark import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "benchmark")
    assert provenance.commit() == "none"
    git(tmp_path, "init")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "a")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit() == head
    (tmp_path / "untracked").write_text("b")
    assert provenance.commit() == head
    (tmp_path / "file").write_text("b")
    assert provenance.commit() == f"{head}-dirty"


def test_everything_is_said_in_text():
    facts = provenance.provenance("cpu")
    assert all(isinstance(value, str) and value for value in facts.values())
    assert facts["torch"] == str(torch.__version__)
    age = datetime.now(UTC) - datetime.fromisoformat(facts["finished_at"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert "threads" in facts["device"]


X86 = "model name\t: MAKER\nflags\t\t: fpu {}\n\nmodel name\t: ANOTHER\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (X86.format("avx2 avx512f avx512_bf16 amx_bf16"), "MAKER (amx_bf16)"),
        (X86.format("avx512_bf16 avx2 avx512f"), "MAKER (avx512_bf16)"),
        (X86.format("avx2 avx512f"), "MAKER (avx512f)"),
        (X86.format("avx2"), "MAKER (avx2)"),
        (X86.format(""), "MAKER"),
        ("processor: 0\nFeatures : fp asimd bf16\n", "MACHINE (bf16)"),
    ],
)
def test_a_processor_is_named_with_its_instructions(monkeypatch, tmp_path, cpuinfo, expected):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(provenance, "Path", lambda path: tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "MACHINE")
    name = provenance.device_name("cpu")
    assert name == f"{expected}, {torch.get_num_threads()} threads"
    assert provenance.same_device(name, name)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("A (avx2), 2 threads", "A (avx512f), 2 threads", False),
        ("A (avx2), 2 threads", "A, 2 threads", True),  # of an older version
        ("A, 2 threads", "A (avx2), 1 threads", False),
        ("A(R) CPU (x), 2 threads", "A(R) CPU (y), 2 threads", False),
        ("NVIDIA H100", "NVIDIA H200", False),
    ],
)
def test_names_without_instructions_are_compared_as_far_as_they_tell(left, right, same):
    assert provenance.same_device(left, right) == provenance.same_device(right, left) == same


def test_code_is_remembered_as_it_was(monkeypatch):
    provenance.remember_code()
    monkeypatch.setattr(provenance, "commit", lambda: "a later one")
    assert provenance.provenance("cpu")["commit"] != "a later one"
