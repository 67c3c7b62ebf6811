"""Resumable loops: after an interruption they give the same numbers as without.

On a GPU, whose sums may differ from run to run by rounding, the same up to that.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmark.files import atomic
from benchmark.memory import is_out_of_memory
from benchmark.progress import bar
from benchmark.spec import NonFiniteError, UsageError

_HISTORY = 200  # most points kept of a loop's logged values
_SAVING_SHARE = 0.05  # largest share of time spent on checkpoints; a pool can be 400 MB


class CheckpointError(UsageError):
    """A checkpoint is damaged, or belongs to another loop."""


class CheckpointedLoop:
    """The harness's `spec.Loop`: one checkpoint file per named loop below `folder`.

    With `folder=None` nothing is saved. State is saved every `save_every_seconds`, or less often if
    saving would take more than a twentieth of the time, and at the end of a loop (without
    `save_ends`, shorter loops are repeated instead). Checkpoints hold only tensors and plain values
    and are read with `weights_only=True`; they include torch's global stream, which dropout uses.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        description: str,
        save_every_seconds: float = 60.0,
        save_ends: bool = True,
    ) -> None:
        self.folder = folder
        self.description = description
        self.save_every_seconds = save_every_seconds
        self.save_ends = save_ends
        self.history: dict[str, list[dict[str, float]]] = {}
        self._pending: list[tuple[int, dict[str, Tensor | float]]] = []
        self._entered: set[str] = set()
        self._name, self._total = "", 0
        self._progress: tqdm[Any] | None = None
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far, including earlier processes and `charge`."""
        return self._seconds_before + time.monotonic() - self._started

    def steps(self, name: str, total: int, **state: Any) -> Iterator[int]:
        """See `spec.Loop.steps`.

        Raises:
            ValueError: a loop of this name was entered before.
            CheckpointError: there is a checkpoint that cannot be resumed from.
            NonFiniteError: a logged value is not finite (detected some steps later).
        """
        if name in self._entered:
            raise ValueError(f"a second loop is called {name!r}: names must be unique")
        self._entered.add(name)
        self._name, self._total = name, total
        start = self._restore(name, state)
        saved_at, pause = time.monotonic(), self.save_every_seconds
        description = f"{self.description}: {name}"
        with bar(total=total, initial=start, description=description) as progress:
            self._progress = progress
            for step in range(start, total):
                yield step
                progress.update()
                began = time.monotonic()
                if began - saved_at > pause:
                    self._save(name, step + 1, state)
                    saved_at = time.monotonic()
                    pause = max(self.save_every_seconds, (saved_at - began) / _SAVING_SHARE)
        self._flush()
        if start < total and self.save_ends:
            self._save(name, total, state)

    def charge(self, seconds: float) -> None:
        """See `spec.Loop.charge`."""
        self._seconds_before += seconds

    def log(self, step: int, **values: Tensor | float) -> None:
        """See `spec.Loop.log`."""
        # copies, as a value may change in place before it is read
        kept = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        self._pending.append((step, kept))
        if len(self._pending) >= 50:
            self._flush()

    def _flush(self) -> None:
        stride = max(1, math.ceil(self._total / _HISTORY))
        history = self.history.setdefault(self._name, [])
        for step, values in self._pending:
            scalars = {name: float(value) for name, value in values.items()}
            for name, value in scalars.items():
                if not math.isfinite(value):
                    self._pending.clear()
                    raise NonFiniteError(
                        f"{self.description}: {name} is {value} at step {step} of {self._name}"
                    )
            if step % stride == 0 or step == self._total - 1:
                history.append({"step": step, **scalars})
        if self._pending and self._progress is not None:
            self._progress.set_postfix(scalars)
        self._pending.clear()

    def _file(self, name: str) -> Path | None:
        return self.folder / f"{name.replace(' ', '-')}.pt" if self.folder else None

    def _save(self, name: str, step: int, state: dict[str, Any]) -> None:
        self._flush()
        file = self._file(name)
        if file is None:
            return
        content = {
            "step": step,
            "seconds": self.seconds,
            "history": self.history,
            "state": {part: _state_of(value) for part, value in state.items()},
            "global streams": _global_streams(),
        }
        with atomic(file) as temporary, temporary.open("wb") as opened:
            try:
                torch.save(content, opened)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # of a full disk, which it hides
                    raise error.__context__ from None
                raise

    def _restore(self, name: str, state: dict[str, Any]) -> int:
        file = self._file(name)
        if file is None or not file.exists():
            return 0
        try:
            content = torch.load(file, weights_only=True, map_location="cpu")
            for part, value in state.items():
                _load_into(value, content["state"][part])
            _set_global_streams(content["global streams"])
            self.history = content["history"]
            self._seconds_before = max(self._seconds_before, content["seconds"])
            return int(content["step"])
        except Exception as error:  # a damaged file, or one of other code, can raise anything
            if is_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"{file}: not a checkpoint of this loop ({reason}): delete it to start over"
            ) from error


def _global_streams() -> dict[str, Any]:
    used = torch.cuda.is_initialized()
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if used else []}


def _set_global_streams(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["cpu"])
    # there may be fewer devices than before
    torch.cuda.set_rng_state_all(saved["cuda"][: torch.cuda.device_count()])


def _state_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict()


def _load_into(value: Any, saved: Any) -> None:
    if isinstance(value, Tensor):
        with torch.no_grad():
            value.copy_(saved)
    elif isinstance(value, torch.Generator):
        value.set_state(saved)
    else:
        value.load_state_dict(saved)
