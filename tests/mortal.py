"""A loop that saves after every step, and dies before one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.loop import CheckpointedLoop


class DeathError(Exception):
    """The loop died."""


class Mortal(CheckpointedLoop):
    """Notes the steps that it takes; needs the fixture `saved_at_every_step`."""

    def __init__(
        self,
        folder: Path | None,
        dies_before: tuple[str, int] | None = None,
        *,
        save_ends: bool = True,
    ) -> None:
        super().__init__(folder, description="toy", save_every_seconds=0.0, save_ends=save_ends)
        self.dies_before = dies_before
        self.taken: list[tuple[str, int]] = []

    def steps(self, name: str, total: int, **state: Any) -> Iterator[int]:
        """Die, or go on."""
        for step in super().steps(name, total, **state):
            if (name, step) == self.dies_before:
                raise DeathError
            self.taken.append((name, step))
            yield step
