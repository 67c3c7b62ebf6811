"""Where cells run: in this process, or in several that share the store."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children, forkserver, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import RLock
from typing import NoReturn

import torch
from tqdm import tqdm

from benchmark.allocation import keep_freed_memory
from benchmark.experiment import Experiment
from benchmark.grid import Cell
from benchmark.memory import is_out_of_memory, make_room
from benchmark.progress import bar, share_terminal
from benchmark.provenance import remember_code
from benchmark.rows import Row
from benchmark.run import run_cell
from benchmark.spec import NonFiniteError, UsageError
from benchmark.stages.distillation import OverBudgetError, RefusedError
from benchmark.stages.keys import distilled_key
from benchmark.stages.probing import is_done
from benchmark.tf32 import choose_tf32

# On Linux, workers are forked from a process that has imported everything (`benchmark.workers`),
# and has used neither CUDA nor a pool of threads, which do not survive a fork. On other systems
# that is not safe, or not there.
_START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_HALVINGS = 4  # of memory, before giving up on a cell that runs out of it


@dataclass
class Outcome:
    """The results of a run.

    Attributes:
        rows: of all finished cells, in the order of the cells.
        skipped: cells whose method refuses their budget, and why.
        failed: cells that failed, and why.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)


def execute(
    cells: Sequence[Cell], experiment: Experiment, *, jobs: int, done: Callable[[list[Row]], object]
) -> Outcome:
    """Run every cell, `jobs` at a time; a cell that fails does not stop the others.

    Args:
        cells: what to run.
        experiment: what they share.
        jobs: processes, each with an equal share of the CPU threads.
        done: called with the rows of each newly finished cell, so that nothing is lost.
    """
    outcome = Outcome()
    kept = [cell for cell in cells if is_done(cell, experiment)]
    if kept:
        sys.stderr.write(f"{len(kept)} of {len(cells)} cells are done already\n")
    found = dict(_results(kept, experiment, jobs=1))
    left = spread([cell for cell in cells if cell not in found], experiment)
    with bar(total=len(cells), initial=len(kept), description="cells", leave=True) as progress:
        for cell, result in _results(left, experiment, jobs):
            found[cell] = result
            if not isinstance(result, Exception):
                done(result)
            progress.update()
    for cell in cells:
        match found[cell]:
            case RefusedError() as error:
                outcome.skipped[cell] = _reason(error, cell)
            case Exception() as error:
                outcome.failed[cell] = _reason(error, cell)
            case rows:
                outcome.rows += rows
    return outcome


def import_ahead() -> None:
    """Import what workers need, where they can share that, while this process goes on."""
    if _START_METHOD == "forkserver":
        forkserver.set_forkserver_preload(["benchmark.workers"])
        forkserver.ensure_running()


def spread(cells: Sequence[Cell], experiment: Experiment) -> list[Cell]:
    """Reorder cells so that those that need the same distilled set are far apart."""
    position: dict[str, int] = {}
    rank = {}
    for cell in cells:
        key = distilled_key(cell, experiment)
        rank[cell] = position[key] = position.get(key, -1) + 1
    return sorted(cells, key=lambda cell: rank[cell])


Result = list[Row] | Exception


def _results(
    cells: Sequence[Cell], experiment: Experiment, jobs: int
) -> Iterator[tuple[Cell, Result]]:
    if jobs == 1:
        for cell in cells:
            yield cell, _run(cell, experiment)
        return
    left = list(cells)
    while left:
        for cell, result in _in_processes(left.copy(), experiment, jobs):
            left.remove(cell)
            yield cell, result
        if left and jobs > 1:
            logging.getLogger(__name__).warning(
                "a process was killed (out of memory?): continuing with one cell at a time"
            )
            jobs = 1
        elif left:
            yield left.pop(0), RuntimeError("its process was killed (out of memory?)")


def _in_processes(
    cells: Sequence[Cell], experiment: Experiment, jobs: int
) -> Iterator[tuple[Cell, Result]]:
    """Run cells in worker processes; if one of these dies, the remaining cells get no result."""
    import_ahead()
    context = get_context(_START_METHOD)
    lines: SimpleQueue[int] = context.SimpleQueue()
    lock = context.RLock()
    for line in range(1, jobs + 1):
        lines.put(line)
    threads = experiment.compute.threads or max(1, torch.get_num_threads() // jobs)
    start = partial(_start, experiment.recreate, threads, lines, lock)
    with ProcessPoolExecutor(jobs, context, initializer=start) as pool:
        tqdm.set_lock(lock)
        try:
            futures = {pool.submit(_run_here, cell): cell for cell in cells}
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield futures[future], future.result()
        except BaseException:  # an interrupt does not wait for running cells
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


def _run(cell: Cell, experiment: Experiment, *, halvings_left: int = _HALVINGS) -> Result:
    """Run a cell; a stage that runs out of memory resumes from its checkpoint with half as much."""
    try:
        return run_cell(cell, experiment)
    except (UsageError, OverBudgetError, NonFiniteError, OSError) as error:
        return error
    except _EndedError:
        raise
    except (Exception, SystemExit) as error:  # a bug, whose traceback is worth logging
        if not (is_out_of_memory(error) and halvings_left and experiment.compute.max_memory):
            logging.getLogger(__name__).exception("%s", cell)
            return RuntimeError(f"{type(error).__name__}: {error}")
    experiment.halve_memory()  # outside the handler, where the failed stage's memory is free
    make_room("stages continue with half as much")
    return _run(cell, experiment, halvings_left=halvings_left - 1)


def _reason(error: Exception, cell: Cell) -> str:
    """Return the message of an error in one line, without the name of its cell."""
    line = " ".join(str(error).split()).removeprefix(f"{cell}: ")
    return line or type(error).__name__


_experiment: Experiment


def _start(
    recreate: Callable[[], Experiment], threads: int, lines: "SimpleQueue[int]", lock: RLock
) -> None:
    """Prepare a worker process, which ends only when its parent does."""
    global _experiment
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    keep_freed_memory()
    choose_tf32()
    remember_code()
    share_terminal(lock, lines.get())
    _experiment = recreate()
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _end)


class _EndedError(SystemExit):
    """This process was told to end."""


def _end(number: int, frame: object) -> NoReturn:
    raise _EndedError(1)


def _follow_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_here(cell: Cell) -> Result:
    try:
        return _run(cell, _experiment)
    except _EndedError:  # temporary files are gone, and no other cell is to begin
        os._exit(1)
