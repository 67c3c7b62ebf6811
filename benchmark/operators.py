"""What computation consists of: operator calls, with the operations and bytes of each.

Operations follow the formulas of `torch.utils.flop_counter`; bytes are those of all tensors that an
operator reads and writes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmark.network import Precision
from benchmark.timing import RATES, Operations, Rate

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Operator:
    """One call: its operations, the rate that bounds them (None if there are none), its bytes."""

    operations: int
    rate: Rate | None
    num_bytes: int


def operators_of(run: Callable[[], object]) -> tuple[Operator, ...]:
    """Run a function, and return the operators that it calls."""
    with OperatorCounter() as counter:
        run()
    return tuple(counter.operators)


def operations_of(run: Callable[[], _T]) -> tuple[Operations, _T]:
    """Run a function, and return the operations of what it calls, and its outcome."""
    with OperatorCounter() as counter:
        outcome = run()
    return by_rate(counter.operators), outcome


def by_rate(operators: Iterable[Operator]) -> Operations:
    """Return the operations of all operators, by the rate that bounds them."""
    found: dict[Rate, int] = {}
    for operator in operators:
        if operator.rate is not None:
            found[operator.rate] = found.get(operator.rate, 0) + operator.operations
    return found


class OperatorCounter(TorchDispatchMode):
    """Records every operator call that does work."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        settings = kwargs or {}
        outcome = func(*args, **settings)
        given = [leaf for leaf in tree_leaves((args, settings)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(outcome) if isinstance(leaf, Tensor)]
        if _does_work(func, given, made):
            operations = _operations(func.overloadpacket, args, settings, outcome)
            rate = _rate(func.overloadpacket, given) if operations else None
            self.operators.append(Operator(operations, rate, _size(given) + _size(made)))
        return outcome


def _does_work(func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> bool:
    """Say whether a call does more than make a view of, or allocate, a tensor."""
    if func.is_view or func.namespace == "prim" or func.overloadpacket in _ROOM:
        return False
    return bool(given) or bool(made)


_ROOM = (
    *(torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided),
    *(torch.ops.aten.detach, torch.ops.aten.detach_, torch.ops.aten._unsafe_view),
)
_BACKWARD = torch.ops.aten.convolution_backward
_CONVOLUTIONS = (torch.ops.aten.convolution, _BACKWARD)


def _operations(packet: Any, args: Sequence[Any], settings: Mapping[str, Any], made: Any) -> int:
    if packet is _BACKWARD:
        # by hand, as torch's formula counts a grouped convolution as if it had one group
        outputs, _, weight = args[:3]
        wanted = sum(args[-1][:2])  # gradients of input and weights
        return int(2 * wanted * len(outputs) * outputs.shape[2:].numel() * weight.numel())
    count = flop_registry.get(packet)
    return int(count(*args, **settings, out_val=made)) if count else 0


def _rate(packet: Any, given: Sequence[Tensor]) -> Rate:
    precision: Precision = "bf16" if given[0].dtype == torch.bfloat16 else "fp32"
    return RATES["convolution" if packet in _CONVOLUTIONS else "matrix product", precision]


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)
