"""The precision and layout in which convolutions are fastest on a device, measured once."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from operator import ne
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from benchmark.files import expect_writable, lock, write_text
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
_HOPELESS = 3.0  # times the shortest, on one image in `_FEWER`: not timed on all of them
_FEWER = 16
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
    with bf16 instructions run them about twice as fast in bf16, others many times slower (with AVX2
    17 times). The measurement takes a second, or a few where bf16 is slow. It is kept in the folder
    `cache`, so that reruns choose alike: precision and layout are part of every key.
    """
    open_choices = {
        name: choice
        for name, choice in _CHOICES.items()
        if choice == (precision or choice[0], layout or choice[1])
    }
    if len(open_choices) == 1:
        return next(iter(open_choices.values()))
    given = [name for name in (precision, layout) if name]
    question = ", ".join([device_name(device), f"torch {torch.__version__}", *given])
    seconds = _convolutions(device, cache / "convolutions.json", question, names=open_choices)
    weighted = {
        choice: seconds[name] * _CLEARLY_FASTER ** sum(map(ne, choice, _USUAL))
        for name, choice in open_choices.items()
    }
    return min(weighted, key=weighted.__getitem__)


def _convolutions(
    device: torch.device, file: Path, question: str, *, names: Collection[str]
) -> Mapping[str, float]:
    """Return the seconds of a convolution for each choice, measured once and kept."""

    def kept() -> Mapping[str, float] | None:
        found = _read(file).get(question, {})
        return found if found.keys() == set(names) else None

    if (found := kept()) is None:
        expect_writable(file)
        with lock(file.parent):  # runs that begin together choose alike
            if (found := kept()) is None:
                found = _measure(device, names)
                write_text(file, json.dumps({**_read(file), question: found}, indent=1))
    return found


def _read(file: Path) -> dict[str, dict[str, float]]:
    """Return earlier measurements, as far as they are valid."""
    try:
        known = dict(json.loads(file.read_text("utf-8")))
    except (OSError, TypeError, ValueError):
        return {}
    return {question: found for question, found in known.items() if _is_valid(found)}


def _is_valid(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(seconds, float) and seconds > 0 for seconds in found.values()
    )


def _measure(device: torch.device, names: Iterable[str]) -> dict[str, float]:
    """Return the seconds of a mid-sized layer, forward and backward, by choice.

    What is hopeless on few images, as bf16 on a CPU without instructions for it, would take most of
    the time, and is not timed on all.
    """
    on_few = _shortest(device, names, fewer=_FEWER, seconds=0.0)
    hopeful = [name for name in on_few if on_few[name] < _HOPELESS * min(on_few.values())]
    on_all = _shortest(device, hopeful, seconds=1.0)
    return {name: on_all.get(name, _FEWER * seconds) for name, seconds in on_few.items()}


def _shortest(
    device: torch.device, names: Iterable[str], *, fewer: int = 1, seconds: float
) -> dict[str, float]:
    """Return the shortest timing of each choice; they take turns, to share all disturbances."""
    runs = {name: _convolution(device, *_CHOICES[name], fewer=fewer) for name in names}
    clock = Clock(device=device)
    for run in runs.values():
        run()
    timers = [partial(clock.seconds, run) for run in runs.values()]
    timings = interleaved(timers, seconds=seconds)
    return {name: min(taken) for name, taken in zip(runs, timings, strict=True)}


def _convolution(
    device: torch.device, precision: Precision, layout: Layout, *, fewer: int = 1
) -> Callable[[], object]:
    layer, images = middle_layer(device, MEMORY_FORMATS[layout])
    images = images[: len(images) // fewer].requires_grad_()
    wanted = (images, *layer.parameters())

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs: Tensor = layer(images)
        return outputs

    upstream = torch.ones_like(forward())
    return lambda: torch.autograd.grad(forward(), wanted, upstream)
