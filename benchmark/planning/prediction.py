"""What a suite takes: its tasks, each with seconds, memory and disk, and what they add up to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from benchmark.grid import Cell
from benchmark.planning.keys import Key

Stage = Literal[
    "teacher", "representations", "by-products", "distillation", "pretraining", "features", "probes"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage of one cell, or of all.

    Attributes:
        stage: what kind.
        line: under which it is listed, with others of its kind.
        key: that no other task has; it begins with the stage.
        label, N: of the method that it is done for; empty and None if for all.
        seconds: expected; None: unknown.
        charged: seconds of by-products, which its measured seconds include.
        memory: bytes of tensors held at the peak.
        disk: bytes left in the store.
    """

    stage: Stage
    line: str
    key: Key
    label: str = ""
    N: int | None = None
    seconds: int | float | None
    charged: int | float = 0
    memory: int | float = 0
    disk: int | float = 0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a suite takes.

    Attributes:
        shared: what all cells wait for: the teacher, and its representations.
        chains: tasks of each cell, one after the other; cells share some of them.
        refused: cells whose method cannot do with their budget, and why.
    """

    shared: tuple[Task, ...]
    chains: Mapping[Cell, tuple[Task, ...]]
    refused: Mapping[Cell, str] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, each once."""
        every = (*self.shared, *(task for chain in self.chains.values() for task in chain))
        return tuple({task.key: task for task in every}.values())

    @property
    def unknown(self) -> list[str]:
        """Lines of which something is not known."""
        return list(dict.fromkeys(task.line for task in self.tasks if task.seconds is None))

    def wall_seconds(self, workers: int) -> float:
        """Return how long `workers` take at best: no cell is shared, but cells share stages."""
        shared = {task.key for task in self.shared}
        rest = seconds_of(task for task in self.tasks if task.key not in shared)
        longest = max(map(seconds_of, self.chains.values()), default=0.0)
        return seconds_of(self.shared) + max(longest, rest / workers)

    def without(self, found: Iterable[Key]) -> "Prediction":
        """Return what is left where some tasks are done; a distillation's by-products are, too."""
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
    """Return the sum of what is known."""
    return float(sum(task.seconds or 0.0 for task in tasks))
