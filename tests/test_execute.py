"""Cells in several processes: what is left of a run when one of these dies."""

import os
import signal
import sys
from multiprocessing import get_context, parent_process
from pathlib import Path

import pytest
import torch

from benchmark import execute
from benchmark.compute import Compute
from benchmark.experiment import Experiment
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
    teacher_exists = False

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker imports for itself")
def test_workers_are_forked_from_a_process_with_torch_and_no_threads():
    execute.import_ahead()
    with get_context(execute._START_METHOD).Pool(1) as pool:
        server = Path("/proc", str(pool.apply(os.getppid)))
        assert server.name != str(os.getpid())
        assert "libtorch" in (server / "maps").read_text()
        assert len(list((server / "task").iterdir())) == 1
