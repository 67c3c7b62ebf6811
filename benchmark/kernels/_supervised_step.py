"""One outer step of `dsa` or `idm`, by the loop of the method itself.

The twin is the same loop with the straightforward matching of `_matching` and the framework's own
layers, in fp32. Inner models are trained by the same code.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmark.kernel import Outcome
from benchmark.network import Network
from benchmark.spec import Method, Problem

from ._setting import BareLoop, stream

_LOOP = "outer steps"


class OneStep(BareLoop):
    """A single outer step of a method; keeps what it works on.

    Attributes:
        index: of the step.
        prepare: changes the state of the loop before the step.
        state: of the loop.
        before: the distilled images before the step.
    """

    def __init__(self, index: int, prepare: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self.index, self.prepare = index, prepare
        self.state: dict[str, Any] = {}
        self.before = torch.empty(0)

    def steps(self, name: str, total: int, **state: Any) -> Iterator[int]:
        """See `spec.Loop.steps`; other loops are left out."""
        if name == _LOOP:
            self.prepare(state)
            self.state, self.before = state, state["images"].clone()
            yield self.index


def one_step(
    method: Method,
    problem: Problem,
    *,
    index: int = 0,
    prepare: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> tuple[Tensor, OneStep]:
    """Take one outer step; return the change of the images, and the loop with its state."""
    loop = OneStep(index, prepare)
    method.distill(problem, generator=stream("draws", problem.device), checkpoint=loop)
    return loop.state["images"].detach() - loop.before, loop


def last_gradient(network: Network) -> Outcome:
    """Return the gradient of a network's last training step, in one tensor."""
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return (torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]),)
