"""Plans of this device: what both `plan` and a dry run show."""

from collections.abc import Hashable, Iterable

import torch

from benchmark.compute import Compute
from benchmark.grid import TEACHER, Cell, Suite
from benchmark.network import Precision
from benchmark.network_factory import NetworkFactory
from benchmark.planning.devices import Networks, ThisDevice
from benchmark.source import Source
from benchmark.spec import ImageShape
from benchmark.stage_keys import distilled_key, student_settings
from benchmark.store import key_of
from benchmark.timing import Clock
from benchmark.views import VIEWS

_ANY = (0.5, 0.5, 0.5)  # pixel statistics: they cost nothing


def networks_of(
    suite: Suite,
    precision: Precision,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    device: torch.device | str = "cpu",
    max_memory: int | None = None,
) -> Networks:
    """Return the networks of a suite, for images of its size."""
    return Networks(
        NetworkFactory(
            shape=ImageShape(3, suite.size, suite.size),
            mean=_ANY,
            std=_ANY,
            precision=precision,
            memory_format=memory_format,
            device=device,
            max_memory=max_memory,
        )
    )


def this_device(suite: Suite, compute: Compute) -> ThisDevice:
    """Return the device that a suite would be run on, ready to be calibrated."""
    networks = networks_of(
        suite,
        compute.precision,
        memory_format=compute.memory_format,
        device=compute.device,
        max_memory=compute.max_memory,
    )
    return ThisDevice(networks, Clock(device=compute.device))


def found_tasks(cells: Iterable[Cell], source: Source) -> Iterable[tuple[Hashable, ...]]:
    """Yield the keys of tasks whose outcome is in the store; nothing is made to find out."""
    if not source.teacher_exists:
        return
    yield ("teacher",)
    yield from (("representations", view) for view in VIEWS if source.has_representations(view))
    for cell in cells:
        if cell.variant.method == TEACHER:
            continue
        place = cell.variant.label, cell.N, cell.seed
        distilled = source.store.folder("distilled", distilled_key(cell, source))
        if (distilled / "distilled.safetensors").exists():
            yield "distillation", *place
        student = source.store.folder("students", key_of(student_settings(cell, source)))
        if (student / "student.safetensors").exists():
            yield "pretraining", *place, cell.student
