"""Where and how networks run: device, precision and memory layout."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import timm
import torch
from torch import nn

from benchmark.files import atomic
from benchmark.network import Precision
from benchmark.provenance import device_name
from benchmark.spec import UsageError

_CLEARLY_FASTER = 1.2  # bf16 must beat fp32 by this factor to be worth its rounding
_IMAGES, _IMAGES_OF_A_GPU = 16, 1024  # timed: enough for launches not to matter


@dataclass(frozen=True)
class Compute:
    """A device, and how networks run on it; images are laid out channels-last.

    Attributes:
        device: where everything lives.
        precision: of backbones; with fp32 on CUDA, convolutions use TF32, see `choose_tf32`.
        threads: of every process on a CPU; with other numbers, sums round differently.
        all_threads: of the teacher's stages, which run alone.
        max_memory: bytes that a stage may take; not part of any key, as it changes numbers by
            rounding only. None means no limit.
    """

    device: torch.device
    precision: Precision
    memory_format: torch.memory_format = torch.channels_last
    threads: int | None = None
    all_threads: int | None = None
    max_memory: int | None = None

    @property
    def settings(self) -> dict[str, str | int | None]:
        """What the keys of all computed results must cover."""
        tf32 = {"tf32": _driver_has_tf32()} if self.device.type == "cuda" else {}
        return {
            **tf32,
            "device": self.device.type,
            "precision": self.precision,
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


def choose_tf32() -> None:
    """Let a GPU run convolutions, but not matrix products, in TF32, whatever the environment says.

    These are torch's defaults, which `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE` changes; whether the driver
    disables TF32 altogether (`NVIDIA_TF32_OVERRIDE=0`) is part of every key.
    """
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


def _driver_has_tf32() -> bool:
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def find_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is a GPU if there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: not supported; expected auto, cpu or cuda")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: {reason}; try auto or cpu") from error
    return torch.device(name)


def choose_precision(device: torch.device, cache: Path) -> Precision:
    """Return bf16 if it makes convolutions clearly faster on `device`; measured once and kept.

    Processors with bf16 instructions run convolutions about twice as fast in bf16, others two to
    three times slower. The measurement takes about a second; keeping it makes reruns use the same
    precision, which is part of every key.
    """
    file = cache / "precision.json"
    machine = f"{device_name(device)}, torch {torch.__version__}"
    known = _read(file)
    if machine not in known:
        fp32, bf16 = _convolution_seconds(device, "fp32"), _convolution_seconds(device, "bf16")
        known[machine] = "bf16" if fp32 > _CLEARLY_FASTER * bf16 else "fp32"
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(known, indent=1))
    return known[machine]


def _read(file: Path) -> dict[str, Precision]:
    """Return earlier measurements; an invalid file counts as empty."""
    try:
        known = dict(json.loads(file.read_text("utf-8")))
    except (OSError, TypeError, ValueError):
        return {}
    return {machine: choice for machine, choice in known.items() if choice in get_args(Precision)}


def _convolution_seconds(device: torch.device, precision: Precision) -> float:
    """Return the shortest of three timings of a mid-sized layer, forward and backward."""
    num_images = _IMAGES if device.type == "cpu" else _IMAGES_OF_A_GPU
    run = _convolution(device, precision, num_images)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _convolution(device: torch.device, precision: Precision, num_images: int) -> Callable[[], None]:
    with torch.random.fork_rng(devices=[]):
        layer = nn.Conv2d(128, 256, 3, padding=1).to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(num_images, 128, 16, 16, device=device, requires_grad=True)
    images = images.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            layer(images).sum().backward()

    return run
