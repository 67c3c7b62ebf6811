"""Capture on the CPU, by the rules of CUDA graphs on storage, waiting and random streams.

A tape records the operators of a function on the storage that they were called with. While it
records, nothing happens: all that was there before is put back. Replaying calls the same operators
on the same storage, so what a function computed in Python, or read from elsewhere than its
arguments, stays as it was, and results land where they landed. Operators that wait for the device
and private random streams are refused. What a tape cannot know: streams, and the lifetime of graphs
and of their memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# What tells the host of values, or makes tensors whose sizes hang on them.
_WAITING = {
    *(aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten._linalg_check_errors),
    *(aten.nonzero, aten.masked_select, aten.bincount, aten._unique2, aten.unique_dim),
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


def tells_the_host(operator: Any, given: Sequence[Tensor]) -> bool:
    """Say whether the host waits for this operator on a device; `given` are its tensors."""
    masked = operator in INDEXING and any(x.dtype == torch.bool for x in given[1:])
    return masked or operator in _WAITING


class Tape(TorchDispatchMode):
    """What was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._own: set[int] = set()
        self._stream = torch.get_rng_state()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if tells_the_host(func.overloadpacket, given) or kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._own | self._before.keys():
                self._before[storage._cdata] = storage, storage.clone()
        made = func(*args, **kwargs)
        self._own |= {storage._cdata for storage in _storages(made)} - self._before.keys()
        self._calls.append((func, args, kwargs, made))  # keeps all storage alive
        return made

    def undo(self) -> None:
        """Put back what was there before."""
        for storage, before in self._before.values():
            storage.copy_(before)
        torch.set_rng_state(self._stream)

    def replay(self) -> None:
        """Do it all again."""
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, made in self._calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and _address(old) != _address(new):
                        old.copy_(new)


def capture(
    run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]
) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Record `run`; see `benchmark.captured.Capture`."""
    tape = Tape()
    try:
        with tape:
            outputs = run(*inputs)
    finally:
        tape.undo()
    return tape.replay, outputs


class Tapes:
    """Captures by tape, in the place of `benchmark.captured.capture_on(device)`; counts."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.refuse = False  # to capture anything more

    def __call__(
        self, run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        if self.refuse:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captures += 1
        replay, outputs = capture(run, inputs)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted, outputs


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
