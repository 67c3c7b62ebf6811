"""Steps that a GPU takes as one CUDA graph instead of hundreds of launches.

A training step of a small network on a small batch is a few hundred kernels, and a GPU is done with
each sooner than Python launches the next. A CUDA graph records them once; replaying it is a single
launch. What it does not record is Python: branches, numbers, what is assigned to attributes. So a
step that is to be captured

* reads whatever differs between its calls from its arguments, which are tensors;
* changes tensors only in place, and only those that it lists as its state;
* never waits for the device;
* draws random numbers only from torch's global stream.

On a CPU all steps are eager.

All graphs of a device share their memory, so that nothing in it outlasts the replay of another: the
outputs are copied at once, and gradients of captured steps are not read elsewhere.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

CALLS_TO_CAPTURE = 3  # the first creates momenta and measures memory
# Both assumed, not measured: of the way that a step moves a tensor, above rounding and far below a
# wrong step; of the root mean square of all ways, below which a way is rounding itself.
_TOLERANCE, _NEGLIGIBLE = 0.01, 0.01

Outputs = tuple[Tensor, ...]
Run = Callable[..., Outputs]
Capture = Callable[[Run, Sequence[Tensor]], tuple[Callable[[], None], Outputs]]
"""Record a function of some tensors; return what replays it, and the tensors of its outputs."""


def launches(num_inputs: int, num_outputs: int) -> int:
    """Return what a replay launches: copies of all inputs and outputs, and the graph."""
    return num_inputs + num_outputs + 1


class CapturedStep:
    """A function of tensors that is called often; a graph is replayed where there can be one.

    Each combination of shapes is captured on its own, in its third call. That call is also run
    eagerly. If the two differ by more than rounding, or if capture fails, a warning is logged, and
    all steps of the process are eager from then on. A step with numbers that are not finite cannot
    be compared, and is not kept.

    Args:
        run: the function, see above for what it may do.
        state: returns the tensors that it changes, which are the same from its second call on.
    """

    def __init__(self, run: Run, state: Callable[[], Iterable[Tensor]] = tuple) -> None:
        self._run = run
        self._state = state
        self._calls: dict[tuple[object, ...], int] = {}
        self._graphs: dict[tuple[object, ...], _Graph] = {}

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Return the outputs for `inputs`, which are all on one device."""
        capture = _capture_now(inputs[0].device)
        if capture is None:
            self._graphs.clear()  # gives their memory back
            return self._run(*inputs)
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key in self._graphs:
            return self._graphs[key](*inputs)
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] < CALLS_TO_CAPTURE:
            return self._run(*inputs)
        return self._run_and_capture(key, inputs, capture)

    def _run_and_capture(
        self, key: tuple[object, ...], inputs: Sequence[Tensor], capture: Capture
    ) -> Outputs:
        """Capture and replay, go back, and run eagerly; keep the graph if both agree."""
        state = list(self._state())
        before = [x.detach().clone() for x in state]
        with torch.random.fork_rng([x.device for x in inputs[:1] if x.is_cuda]):
            try:
                graph = _Graph(capture, self._run, inputs)
                found = graph(*inputs)
            except RuntimeError as error:
                # ending a capture in which something failed fails, too: the former says why
                cause = error.__context__ or error
                _give_up((str(cause) or type(cause).__name__).splitlines()[0])
        replayed = [x.detach().clone() for x in state]
        _assign(state, before)
        expected = self._run(*inputs)
        if not _given_up and all(x.isfinite().all() for x in (*expected, *state)):
            if _agree(found, expected) and _state_agrees(replayed, state, before):
                self._graphs[key] = graph
            else:
                _give_up("its results differ")
        return expected


_given_up = False


def _give_up(reason: str) -> None:
    global _given_up
    _given_up = True
    _place.cache_clear()  # with the last graph, their memory can be used for something else
    logging.getLogger(__name__).warning(f"steps are not replayed as CUDA graphs: {reason}")


class _Graph:
    """A captured function; inputs are copied in and outputs are copied out."""

    def __init__(self, capture: Capture, run: Run, inputs: Sequence[Tensor]) -> None:
        self._inputs = [x.detach().clone() for x in inputs]
        self._replay, self._outputs = capture(run, self._inputs)

    def __call__(self, *inputs: Tensor) -> Outputs:
        _assign(self._inputs, inputs)
        self._replay()
        return tuple(x.clone() for x in self._outputs)


def tensors_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what a training step changes: parameters, buffers, and the optimizer's state."""
    momenta = [x for state in optimizer.state.values() for x in state.values()]
    return [
        *network.parameters(),
        *network.buffers(),
        *(x for x in momenta if isinstance(x, Tensor)),
    ]


def captures(device: torch.device) -> bool:
    """Say whether steps on a device are captured: a failed capture has ended that."""
    return _capture_now(device) is not None


def _capture_now(device: torch.device) -> Capture | None:
    return None if _given_up else capture_on(device)


def capture_on(device: torch.device) -> Capture | None:
    """Return how functions are captured on a device, or None if they are not."""
    return partial(_capture_on_cuda, device) if device.type == "cuda" else None


def _capture_on_cuda(
    device: torch.device, run: Run, inputs: Sequence[Tensor]
) -> tuple[Callable[[], None], Outputs]:
    pool, side, _ = _place(device)
    return _record(partial(run, *inputs), device, pool, side)


def _record(
    run: Callable[[], Outputs], device: torch.device, pool: Any, side: torch.cuda.Stream
) -> tuple[Callable[[], None], Outputs]:
    graph = torch.cuda.CUDAGraph()
    with (
        torch.cuda.device(device),
        torch.cuda.stream(torch.cuda.current_stream()),  # returns to it, even if capture fails
        torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"),
    ):
        outputs = run()
    return graph.replay, outputs


@cache
def _place(device: torch.device) -> tuple[Any, torch.cuda.Stream, object]:
    """Return the memory that all graphs share, as one is replayed at a time, and their stream.

    The third is a graph for keeping: memory without any graph cannot be used for another.
    """
    with torch.cuda.device(device):
        pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
    return pool, side, _record(lambda: (torch.zeros(1, device=device),), device, pool, side)


@torch.no_grad()
def _assign(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _state_agrees(
    found: Sequence[Tensor], expected: Sequence[Tensor], origin: Sequence[Tensor]
) -> bool:
    """Compare parameters, then what moves by more: momenta and statistics, and counters."""
    kinds = [(x.requires_grad, x.is_floating_point()) for x in expected]
    for kind in set(kinds):
        chosen = [i for i, its_kind in enumerate(kinds) if its_kind == kind]
        if not _agree(*([group[i] for i in chosen] for group in (found, expected, origin))):
            return False
    return True


def _agree(
    found: Sequence[Tensor], expected: Sequence[Tensor], origin: Sequence[Tensor] | None = None
) -> bool:
    """Say whether each tensor differs by rounding only, compared with its way from `origin` (or 0).

    A way far below the root mean square of all is rounding itself: of a bias before batch norm.
    """
    if not expected:
        return True
    ways = _distances(expected, origin or [torch.zeros_like(x) for x in expected])
    ways = ways.clamp(min=_NEGLIGIBLE * ways.square().mean().sqrt())
    return bool((_distances(found, expected) <= _TOLERANCE * ways).all())


def _distances(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    pairs = zip(left, right, strict=True)
    return torch.stack([(x.detach().double() - y.detach().double()).norm() for x, y in pairs])
