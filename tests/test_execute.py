"""Cells in several processes: what is left of a run when one of these dies."""

import os
import signal
import subprocess
import sys
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark import execute
from benchmark.compute import Compute
from benchmark.experiment import Experiment
from benchmark.files import atomic
from benchmark.grid import Cell, Variant
from benchmark.spec import UsageError


class Refused(Variant):
    """Cannot be run: a result like any other."""

    def __getattribute__(self, name):
        if name == "method" and parent_process() is not None:
            self.run()
        return super().__getattribute__(name)

    def run(self):
        raise UsageError(f"{self.label} is refused")


class Deadly(Refused):
    """Takes its process with it, as the kernel does when memory runs out."""

    def run(self):
        os.kill(os.getpid(), signal.SIGKILL)


class NoExperiment(Experiment):
    teacher_origin = SimpleNamespace(exists=False)

    def __init__(self):
        self.compute = Compute(torch.device("cpu"), "fp32", threads=1)
        self.recreate = NoExperiment


def cell(kind, label):
    return Cell(variant=kind(label=label, method="random"), N=1, student="convnet", seed=0)


def test_a_killed_process_costs_its_own_cell_alone(caplog):
    cells = [cell(Refused, "a"), cell(Deadly, "b"), cell(Refused, "c")]
    results = {
        one.variant.label: str(error) for one, error in execute._results(cells, NoExperiment(), 2)
    }
    assert results.pop("b") == "its process was killed (out of memory?)"
    assert results == {label: f"{label} is refused" for label in "ac"}
    assert "continuing with one cell at a time" in caplog.text


class Terminated(Refused):
    """Is told to end while it writes a file, as all workers are when a run is interrupted."""

    def run(self):
        with atomic(Path(self.label)) as temporary:
            temporary.write_text("half a file")
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_is_told_to_end_leaves_no_temporary_file_and_begins_nothing(tmp_path):
    cells = [cell(Terminated, str(tmp_path / name)) for name in "ab"]
    results = [str(error) for _, error in execute._results(cells, NoExperiment(), 2)]
    assert results == ["its process was killed (out of memory?)"] * 2
    assert not list(tmp_path.iterdir())


class Unwritable(Refused):
    def run(self):
        raise PermissionError(13, "Permission denied", "store")


def test_a_disk_that_fails_is_a_failure_and_no_bug(caplog):
    ((_, error),) = execute._results([cell(Unwritable, "a")], NoExperiment(), 2)
    assert isinstance(error, PermissionError)
    assert "Traceback" not in caplog.text


class Leaving(Refused):
    def run(self):
        sys.exit("bye")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_leaves_does_not_stop_the_others(jobs, monkeypatch):
    def run_cell(cell, experiment):
        cell.variant.run()

    monkeypatch.setattr(execute, "run_cell", run_cell)  # of this process
    cells = [cell(Leaving, "a"), cell(Refused, "b")]
    results = [str(error) for _, error in execute._results(cells, NoExperiment(), jobs)]
    assert sorted(results) == ["SystemExit: bye", "b is refused"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker imports for itself")
def test_workers_are_forked_from_a_process_with_torch_and_no_threads():
    execute.import_ahead()
    with get_context(execute._START_METHOD).Pool(1) as pool:
        server = Path("/proc", str(pool.apply(os.getppid)))
        assert server.name != str(os.getpid())
        assert "libtorch" in (server / "maps").read_text()
        assert len(list((server / "task").iterdir())) == 1


def test_an_interrupt_while_workers_import_is_not_theirs_to_report():
    script = """
import signal, sys
sys.modules["torch"] = None
try:
    import benchmark.workers
except ImportError:
    print(signal.getsignal(signal.SIGINT).name)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "SIG_IGN\n"
