"""The precision and layout in which convolutions are fastest on a device, measured once."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from operator import ne
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from benchmark.files import atomic
from benchmark.network import MEMORY_FORMATS, Layout, Precision
from benchmark.provenance import device_name
from benchmark.timing import Clock, interleaved, middle_layer

_Choice = tuple[Precision, Layout]
_CHOICES: Mapping[str, _Choice] = {
    f"{precision} {layout}": (precision, layout)
    for precision in get_args(Precision)
    for layout in get_args(Layout)
}
_CLEARLY_FASTER = 1.2  # by this factor bf16 must beat fp32, and another layout channels-last
_USUAL = ("fp32", "channels-last")


def choose(
    device: torch.device,
    cache: Path,
    *,
    precision: Precision | None = None,
    layout: Layout | None = None,
) -> tuple[Precision, Layout]:
    """Return the precision and layout that networks have on `device`; those given are not chosen.

    They are fp32 and channels-last, unless convolutions are clearly faster otherwise. Processors
    with bf16 instructions run them about twice as fast in bf16, others two to three times slower.
    The measurement takes about a second. It is kept in the folder `cache`, so that reruns choose
    alike: precision and layout are part of every key.
    """
    if precision and layout:
        return precision, layout
    weighted = {
        choice: seconds * _CLEARLY_FASTER ** sum(map(ne, choice, _USUAL))
        for choice, seconds in _convolutions(device, cache).items()
        if choice == (precision or choice[0], layout or choice[1])
    }
    return min(weighted, key=weighted.__getitem__)


def _convolutions(device: torch.device, cache: Path) -> Mapping[_Choice, float]:
    """Return the seconds of a convolution for each choice, measured once and kept."""
    file = cache / "convolutions.json"
    machine = f"{device_name(device)}, torch {torch.__version__}"
    known = _read(file)
    if machine not in known:
        known[machine] = _measure(device)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(known, indent=1))
    return {choice: known[machine][name] for name, choice in _CHOICES.items()}


def _read(file: Path) -> dict[str, dict[str, float]]:
    """Return earlier measurements, as far as they are valid."""
    try:
        known = dict(json.loads(file.read_text("utf-8")))
    except (OSError, TypeError, ValueError):
        return {}
    return {machine: found for machine, found in known.items() if _is_valid(found)}


def _is_valid(found: object) -> bool:
    return (
        isinstance(found, dict)
        and found.keys() == _CHOICES.keys()
        and all(isinstance(seconds, float) and seconds > 0 for seconds in found.values())
    )


def _measure(device: torch.device) -> dict[str, float]:
    """Return the shortest of several timings of a mid-sized layer, forward and backward, by choice.

    Choices take turns, so that none of them meets all of a disturbance.
    """
    runs = {name: _convolution(device, *choice) for name, choice in _CHOICES.items()}
    clock = Clock(device=device)
    for run in runs.values():
        run()
    timings = interleaved([partial(clock.seconds, run) for run in runs.values()], seconds=1.0)
    return {name: min(timing.seconds) for name, timing in zip(runs, timings, strict=True)}


def _convolution(
    device: torch.device, precision: Precision, layout: Layout
) -> Callable[[], object]:
    layer, images = middle_layer(device, MEMORY_FORMATS[layout])
    wanted = (images.requires_grad_(), *layer.parameters())

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs: Tensor = layer(images)
        return outputs

    upstream = torch.ones_like(forward())
    return lambda: torch.autograd.grad(forward(), wanted, upstream)
