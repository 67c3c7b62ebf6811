"""What a network costs on any batch, operator by operator, without running it.

The network is traced with fake tensors, which have shapes but no data (`benchmark.operators`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from benchmark.network import Network, in_mode
from benchmark.operators import Operator, OperatorCounter, by_rate
from benchmark.spec import ImageShape
from benchmark.timing import Operations

_FEW, _MORE = 2, 4  # images; batch norm needs two
_MOMENTUM, _DECAY = 0.9, 1e-4  # of the optimizer's step; only that they are not zero matters


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """A pass of a batch through a network.

    Attributes:
        operators: those that do work, in order; each is a launch.
        saved: bytes that the graph keeps for the backward pass, without weights.
        weights: bytes of the network's weights.
    """

    operators: tuple[Operator, ...]
    saved: int
    weights: int

    @property
    def operations(self) -> Operations:
        """Operations, by the rate that bounds them."""
        return by_rate(self.operators)

    @property
    def training_memory(self) -> int:
        """Bytes held between forward and backward: graph, weights, gradients and momenta."""
        return self.saved + 3 * self.weights

    @property
    def forward_memory(self) -> int:
        """Bytes held in a pass without a graph: the largest operator's, and the weights."""
        return self.weights + max((operator.num_bytes for operator in self.operators), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """The cost of a pass as a function of batch size: a fixed part plus a part per image.

    Attributes:
        few, more: counts for 2 and for 4 images.
    """

    few: PassCost
    more: PassCost

    def at(self, batch: int) -> PassCost:
        """Return the cost of a batch."""
        part = (batch - _FEW) / (_MORE - _FEW)

        def between(few: int, more: int) -> int:
            return round(few + part * (more - few))

        operators = (
            Operator(
                between(few.operations, more.operations),
                few.rate,
                between(few.num_bytes, more.num_bytes),
            )
            for few, more in zip(self.few.operators, self.more.operators, strict=True)
        )
        return PassCost(
            operators=tuple(operators),
            saved=between(self.few.saved, self.more.saved),
            weights=self.few.weights,
        )


def network_cost(
    network: Network, shape: ImageShape, *, training: bool, elsewhere: bool = False
) -> NetworkCost:
    """Count one pass of a network.

    Args:
        network: any.
        shape: of its images.
        training: count a step of SGD with momentum, not the features of a frozen network.
        elsewhere: count as on a device other than the CPU.
    """
    with _Elsewhere() if elsewhere else nullcontext():
        few, more = (_count(network, shape, batch, training=training) for batch in (_FEW, _MORE))
    return NetworkCost(few=few, more=more)


def _count(network: Network, shape: ImageShape, batch: int, *, training: bool) -> PassCost:
    if not training:
        with in_mode(network, training=False):
            network = network.frozen()
    chunks, network.chunks = network.chunks, None  # whole passes are counted
    counted = network if training else _Features(network)
    named = dict(counted.named_parameters())
    weights = sum(weight.numel() * weight.itemsize for weight in named.values())
    tensors = {name: tensor.detach() for name, tensor in (*named.items(), *counted.named_buffers())}
    counter, saved = OperatorCounter(), dict[int, int]()
    with in_mode(network, training=training), FakeTensorMode() as fake:
        state: dict[str, Tensor] = {
            name: fake.from_tensor(tensor) for name, tensor in tensors.items()
        }
        learnt = [state[name].requires_grad_(training) for name in named]
        optimizer = _warm_optimizer(learnt) if training else None
        images = torch.empty(batch, shape.c, shape.h, shape.w, device=network.mean.device)
        with counter, _saved(saved, without=learnt), torch.set_grad_enabled(training):
            outputs = functional_call(counted, state, (images,))
            if optimizer is not None:
                outputs.square().mean().backward()
                optimizer.step()
    network.chunks = chunks
    return PassCost(operators=tuple(counter.operators), saved=sum(saved.values()), weights=weights)


class _Features(nn.Module):
    """A network without its head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)


def _warm_optimizer(weights: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Return a fused optimizer whose momenta exist already."""
    optimizer = torch.optim.SGD(
        weights, lr=0.1, momentum=_MOMENTUM, weight_decay=_DECAY, fused=True
    )
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


class _Elsewhere(TorchFunctionMode):
    """Hides that images are in the default layout, for which modules have CPU-specific code.

    Fake tensors cannot be on an absent device; ConvNet, which pools by matrix products where these
    are faster, checks the layout as well.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.is_contiguous:
            return False
        return func(*args, **(kwargs or {}))


@contextmanager
def _saved(found: dict[int, int], *, without: Sequence[Tensor]) -> Iterator[None]:
    """Record the bytes of every storage that a graph keeps, once each, without weights."""
    own = {_place(weight) for weight in without}

    def keep(tensor: Tensor) -> Tensor:
        if (place := _place(tensor)) not in own:
            found[place] = tensor.numel() * tensor.itemsize
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        yield


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
