"""Where and how networks run: device, precision and memory layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import timm
import torch

from benchmark.network import MEMORY_FORMATS, Layout, Precision
from benchmark.spec import UsageError
from benchmark.tf32 import driver_has_tf32


@dataclass(frozen=True)
class Compute:
    """A device, and how networks run on it.

    Attributes:
        device: where everything lives.
        precision: of backbones; with fp32 on CUDA, convolutions use TF32, see `benchmark.tf32`.
        layout: of images and weights in memory, except where a method has its own.
        threads: of every process on a CPU; with other numbers, sums round differently.
        all_threads: of the teacher's stages, which run alone.
        max_memory: bytes that a stage may take; not part of any key, as it changes numbers by
            rounding only. None means no limit.
    """

    device: torch.device
    precision: Precision
    layout: Layout = "channels-last"
    threads: int | None = None
    all_threads: int | None = None
    max_memory: int | None = None

    @property
    def memory_format(self) -> torch.memory_format:
        """The framework's constant for the layout."""
        return MEMORY_FORMATS[self.layout]

    @property
    def settings(self) -> dict[str, str | int | None]:
        """What the keys of all computed results must cover."""
        tf32 = {"tf32": driver_has_tf32()} if self.device.type == "cuda" else {}
        return {
            **tf32,
            "device": self.device.type,
            "precision": self.precision,
            "layout": self.layout,
            "threads": self.threads,
            "torch": str(torch.__version__),
            "timm": timm.__version__,
        }

    @property
    def teacher_settings(self) -> dict[str, str | int | None]:
        """What the keys of the teacher's stages must cover; they do not depend on `threads`."""
        return {**self.settings, "threads": self.all_threads}

    @contextmanager
    def on_all_threads(self) -> Iterator[None]:
        """Use all threads within the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.all_threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def find_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is a GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name.partition(":")[0] != "cuda":
        raise UsageError(f"--device {name}: not supported; expected auto, cpu or cuda")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: {reason}; try auto or cpu") from error
    return torch.device(name)
