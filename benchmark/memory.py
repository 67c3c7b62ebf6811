"""A memory budget, and network passes in chunks that keep within it.

A stage may take `max_memory` bytes. Half of them are for the peak of one network pass; the other
half is for everything else: images, representations, features, weights, and on a GPU the memory
that the graphs of captured steps keep (`benchmark.captured`), as much as the largest such step
takes. The peak of a pass is measured, not guessed: the pass and, with gradients, its backward pass
run with a few images, and every new tensor is counted while it is alive. Scratch space inside
operators is not counted.

A batch that does not fit is processed in equal chunks. With gradients, a chunk's graph is discarded
and recomputed in the backward pass (activation checkpointing), so that one is held at a time, at
the cost of one more forward pass. Second derivatives stay correct, but the first backward pass then
keeps the graphs of all chunks. A network that depends on the batch as a whole, as with batch
normalisation in training mode, is never split.

DATM's graphs of inner steps are measured and limited likewise (`methods/_graphs_at_once.py`).

Nothing else needs this at published sizes. The source is represented in batches of 1 024 (pixels:
12 MiB at 32x32), distilled images are decoded one batch at a time, DSA's classes and IDM's views
are a few hundred images in a small network, and IDM augments 8 192 real images at once (96 MiB). A
probe holds the features of all images, and `fair` a standardised copy of those that it is fitted
on, whatever the budget.

All of this depends only on sizes, not on the memory that happens to be free, so that the same
command gives the same numbers.
"""

import logging
import math
import os
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from benchmark.allocation import release_freed_memory

GIB = 2**30
_SHARE = 0.75  # of a device's memory by default: the rest is for other use
_PASS_SHARE = 0.5  # of the budget
# Images of a pass without a graph on a CPU. With thousands, maps exceed the size of blocks that are
# kept when they are freed (`benchmark.allocation`), and passes take a fifth longer.
_CPU_BATCH = 256
_MANY = 32  # images at 32x32 whose feature maps exceed the bf16 weights of a ResNet-18

# Layers of torch that mix the images of a batch in training mode, or draw random numbers.
_MIXING = (_NormBase, _DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.RNNBase)
# Parts of allocation error messages, of the host, of CUDA and its libraries, and of oneDNN.
_ALLOCATORS = (
    *("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED"),
    *("ALLOCATION_FAILED", "unable to find an engine"),  # cuDNN's, without memory to work in
    *("could not create a primitive", "could not create a memory", "could not execute a primitive"),
)

Pass = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""Features of images by a backbone, or by a stand-in for it."""


def default_memory(device: torch.device, *, jobs: int) -> int | None:
    """Return the bytes that each of `jobs` stages on a device may take by default.

    Three quarters of a GPU's memory, or of the machine's (or its control group's, if less), in
    equal parts; None where the system does not report it.
    """
    total = _host_memory() if device.type == "cpu" else _accelerator_memory(device)
    return None if total is None else share_of(total, jobs=jobs)


def share_of(memory: int | float, *, jobs: int = 1) -> int:
    """Return the default bytes that each of `jobs` stages may take out of `memory`."""
    return int(_SHARE * memory / jobs)


def _accelerator_memory(device: torch.device) -> int | None:
    try:
        _, total = torch.accelerator.get_memory_info(device)
    except RuntimeError:  # of a kind that does not report it
        return None
    return int(total)


def _host_memory() -> int | None:
    """Return the memory of this machine, or the lowest limit of the process's control groups."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    return min([physical, *_group_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _group_limits(root: Path, membership: Path) -> Iterator[int]:
    """Yield the limits of Linux control groups (v1 or v2), from this process's own upwards.

    Inside a container its group is the root, whatever name the process sees.
    """
    lines = membership.read_text().splitlines() if membership.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers not in ("", "memory"):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        own = root / controllers / path.strip("/")
        for folder in (own, *own.parents):
            limit = folder / name
            if limit.exists() and (text := limit.read_text().strip()).isdecimal():
                yield int(text)


def num_at_once(num: int, *, each: int, max_memory: int | None) -> int:
    """Return how many of `num` equal tasks of `each` bytes may run at once; at least one.

    As for a network pass, half of the budget is for them.
    """
    if max_memory is None:
        return num
    return min(num, max(1, int(_PASS_SHARE * max_memory) // each))


class Chunks:
    """Passes of one network, each in chunks whose peak keeps within a share of a budget.

    Args:
        max_memory: bytes that a stage may take.
    """

    def __init__(self, max_memory: int) -> None:
        self.memory = int(_PASS_SHARE * max_memory)
        self._most: dict[Hashable, int] = {}
        self._limited: set[Hashable] = set()

    def __call__(self, run: Pass, backbone: nn.Module, images: Tensor, *, precision: str) -> Tensor:
        """Return `run` of the backbone and the images, in chunks if the whole batch does not fit.

        If memory runs out nevertheless, chunks are halved, also for later passes.
        """
        if len(images) < 2:
            return run(backbone, images)
        graph = _has_graph(backbone, images)
        key = (precision, graph, images.requires_grad, images.shape[1:], images.dtype)
        if len(images) > self._most.get(key, 1) and not keeps_images_apart(backbone):
            return run(backbone, images)
        if len(images) > self._most.get(key, 0) and key not in self._limited:
            self._most[key] = self.fitting(run, backbone, images, wanted=len(images))
            if len(images) > self._most[key]:
                self._limited.add(key)
        while (size := min(self._most[key], len(images))) > 1:
            try:
                return _in_chunks(run, backbone, images, size=size, graph=graph)
            except (RuntimeError, MemoryError) as error:
                if not (is_out_of_memory(error) and keeps_images_apart(backbone)):
                    raise
            self._most[key] = size // 2  # out here, the failed pass's memory is free
            self._limited.add(key)
            make_room(f"{size // 2} images at once instead of {size}")
        return _in_chunks(run, backbone, images, size=1, graph=graph)

    def fitting(
        self, run: Pass, backbone: nn.Module, images: Tensor, *, wanted: int | None = None
    ) -> int:
        """Return how many images like the first two fit in a pass, or `wanted` if these fit.

        The peak is convex in the number of images: with two it may be weights cast to bf16, with
        many it is feature maps. So b images take at most b times as much as one; if that is too
        much, several sizes are measured and extrapolated.
        """
        graph = _has_graph(backbone, images)

        def held(num: int) -> int:
            return _largest(run, backbone, images[:2].repeat(num, 1, 1, 1)[:num], graph=graph)

        def extrapolated(one: int, two: int, *, num: int) -> int:
            """Extrapolate linearly from the peaks of `num` and twice as many images."""
            each = max(1, (two - one) // num)
            return max(1, (self.memory - (one - num * each)) // each)

        size = num = 1
        try:
            one = held(1)
            if wanted is not None and wanted * one <= self.memory:
                return wanted
            size = extrapolated(one, held(2), num=1)
            if size > 3:
                num = min(_MANY, size // 2)
                size = min(size, extrapolated(held(num), held(2 * num), num=num))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return max(1, num // 2)
        return size


def _has_graph(backbone: nn.Module, images: Tensor) -> bool:
    return torch.is_grad_enabled() and (
        images.requires_grad or any(weight.requires_grad for weight in backbone.parameters())
    )


def keeps_images_apart(backbone: nn.Module) -> bool:
    """Say whether the features of an image certainly do not depend on the rest of its batch.

    In evaluation mode they never do; in training mode this is known for torch's own layers, and for
    those with a `keeps_images_apart` that is true.
    """
    return all(
        not module.training
        or getattr(module, "keeps_images_apart", False)
        or (
            type(module).forward.__module__.startswith("torch.nn.")
            and not isinstance(module, _MIXING)
        )
        for module in backbone.modules()
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is an out-of-memory error, of a GPU or of the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _ALLOCATORS)


_said = False


def make_room(remedy: str) -> None:
    """Release cached memory; warn once per process that it ran out."""
    global _said
    if torch.accelerator.is_available():
        with suppress(RuntimeError):  # of older versions, after a capture that failed
            torch.accelerator.empty_cache()
    release_freed_memory()
    if not _said:
        logging.getLogger(__name__).warning(f"out of memory: {remedy}")
    _said = True


def _in_chunks(run: Pass, backbone: nn.Module, images: Tensor, *, size: int, graph: bool) -> Tensor:
    """Process a batch in equal chunks of at most `size` images, without a graph on a CPU fewer."""
    on_cpu = images.device.type == "cpu"
    if size > _CPU_BATCH and on_cpu and not graph and keeps_images_apart(backbone):
        size = _CPU_BATCH
    if size >= len(images):
        return run(backbone, images)
    chunks = images.tensor_split(math.ceil(len(images) / size))
    if not graph:
        return _filled(partial(run, backbone), chunks)
    # The current weights: by the backward pass, a module in a `functional_call` has its own back.
    weights = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    again = partial(
        checkpoint,
        run,
        partial(functional_call, backbone, weights),
        use_reentrant=False,
        preserve_rng_state=False,
    )
    return torch.cat([again(chunk) for chunk in chunks])


def _filled(run: Callable[[Tensor], Tensor], chunks: Sequence[Tensor]) -> Tensor:
    """Concatenate the outputs for all chunks, of which only one is held beside the whole.

    If the whole does not fit, that shows after the first chunk, not after the last.
    """
    first = run(chunks[0])
    whole = first.new_empty(sum(map(len, chunks)), *first.shape[1:])
    parts = whole.split([len(chunk) for chunk in chunks])
    parts[0].copy_(first)
    del first
    for part, chunk in zip(parts[1:], chunks[1:], strict=True):
        part.copy_(run(chunk))
    return whole


def _largest(run: Pass, backbone: nn.Module, images: Tensor, *, graph: bool) -> int:
    """Return the peak bytes of a pass, and of its backward pass if it has a graph."""
    images = images.detach().requires_grad_(images.requires_grad)

    def both() -> None:
        features = run(backbone, images)
        if graph:
            wanted = [x for x in (images, *backbone.parameters()) if x.requires_grad]
            torch.autograd.grad(features.sum(), wanted, allow_unused=True)

    return peak_bytes(both)


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most bytes of new tensors that are alive at once while `run` runs."""
    live = _LiveBytes()
    with live:
        run()
    return live.most


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storage allocated inside it, as long as it is alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self._known.setdefault(given.untyped_storage(), None)
        made = func(*args, **kwargs)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known[storage] = None
        self._change(storage.nbytes())
        weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, num_bytes: int) -> None:
        self.now += num_bytes
        self.most = max(self.most, self.now)
