"""The expected cost of a suite: its tasks, each with seconds, memory and disk, and totals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from benchmark.grid import Cell
from benchmark.planning.keys import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage of one cell, or of all cells.

    Attributes:
        line: name of the table row that lists it with others of its kind.
        key: see `benchmark.planning.keys`.
        label, N: of the method that it belongs to; empty and None if shared by all.
        seconds: expected time; None if unknown.
        eager_seconds: expected time without CUDA graphs; None if nothing would be captured.
        charged: seconds of by-products, which its measured time includes.
        memory: peak bytes of tensors.
        disk: bytes left in the store.
    """

    line: str
    key: Key
    label: str = ""
    N: int | None = None
    seconds: int | float | None
    eager_seconds: int | float | None = None
    charged: int | float = 0
    memory: int | float = 0
    disk: int | float = 0

    @property
    def stage(self) -> str:
        """Its kind."""
        return str(self.key[0])


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The expected cost of a suite.

    Attributes:
        shared: tasks that all cells wait for: the teacher and its representations.
        chains: tasks of each cell, in order; cells share some of them.
        refused: cells whose method refuses their budget, and why.
    """

    shared: tuple[Task, ...]
    chains: Mapping[Cell, tuple[Task, ...]]
    refused: Mapping[Cell, str] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, once each."""
        every = (*self.shared, *(task for chain in self.chains.values() for task in chain))
        return tuple({task.key: task for task in every}.values())

    @property
    def unknown(self) -> list[str]:
        """Table rows with tasks of unknown cost."""
        return list(dict.fromkeys(task.line for task in self.tasks if task.seconds is None))

    def wall_seconds(self, workers: int) -> float:
        """Return how long `workers` take at best: no cell is split, but cells share stages."""
        shared = {task.key for task in self.shared}
        rest = seconds_of(task for task in self.tasks if task.key not in shared)
        longest = max(map(seconds_of, self.chains.values()), default=0.0)
        return seconds_of(self.shared) + max(longest, rest / workers)

    def without(self, found: Iterable[Key]) -> "Prediction":
        """Return what remains when some tasks are done; a finished set needs no by-products."""
        done = set(found)
        for chain in self.chains.values():
            if any(task.stage == "distillation" and task.key in done for task in chain):
                done |= {task.key for task in chain if task.stage == "by-products"}
        return Prediction(
            shared=tuple(task for task in self.shared if task.key not in done),
            chains={
                cell: tuple(task for task in chain if task.key not in done)
                for cell, chain in self.chains.items()
            },
            refused=self.refused,
        )


def seconds_of(tasks: Iterable[Task]) -> float:
    """Return the sum of all known seconds."""
    return float(sum(task.seconds or 0.0 for task in tasks))
