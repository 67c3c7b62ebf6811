import subprocess
from datetime import UTC, datetime, timedelta

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


def test_a_processor_with_other_instructions_is_another_device(monkeypatch):
    here = provenance.device_name("cpu")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    assert provenance.device_name("cpu") not in (here, "")
    assert "OTHER" in provenance.device_name("cpu")


def test_code_is_remembered_as_it_was(monkeypatch):
    provenance.remember_code()
    monkeypatch.setattr(provenance, "commit", lambda: "a later one")
    assert provenance.provenance("cpu")["commit"] != "a later one"
