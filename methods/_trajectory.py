"""Trajectory matching: train on the distilled set for some steps, and compare final weights.

From an expert's weights w_0, T inner steps of plain SGD on the distilled set ::

    w_{t+1} = w_t - lr g_t,        g_t = gradient at w_t of the inner loss l_t(w, images, logits)

end at w_T, which is compared with the weights w* that the expert reaches later::

    L = || w_T - w* ||^2 / || w_0 - w* ||^2

The gradient of L with respect to images, logits and lr is that of automatic differentiation through
the whole unroll. A graph of all T steps would take T times the memory of one, so the steps are
split into segments (gradient checkpointing): only the weights before each are kept, and a segment
is unrolled a second time, with its graph, when the gradient arrives at its end (the last one is
unrolled once). With segments of 2 sqrt(T) steps, memory is that of as many graphs, and of a vector
of weights for each segment; arithmetic is at most a third more than with one graph. Where a memory
budget does not hold so many graphs, segments are shorter (`_graphs_at_once`).
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import OPERATIONS, Augmentation, draw_each
from benchmark.network import Network, Precision
from benchmark.spec import UsageError

InnerLoss = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Loss of (weights, distilled images, label logits) at one inner step; the same whenever called."""


class FlatNetwork:
    """A network as a function of a flat vector of weights, and of images.

    Raises:
        UsageError: the network keeps running statistics, which are not weights.
    """

    def __init__(self, network: Network) -> None:
        self.network = network.eval().requires_grad_(False)
        self.shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
        self._sizes = [weight.numel() for weight in network.parameters()]
        if len(network.state_dict()) > len(self.shapes):
            raise UsageError(
                "trajectories are of weights alone, but the inner model also keeps running "
                "statistics: choose one without batch normalisation (for convnet: norm=instance)"
            )

    @property
    def num_weights(self) -> int:
        """Length of the vector."""
        return sum(self._sizes)

    @property
    def weights(self) -> Float[Tensor, " weights"]:
        """The network's own weights, as a new vector."""
        return torch.cat([weight.flatten() for weight in self.network.parameters()])

    def at(self, precision: Precision) -> "FlatNetwork":
        """Return the same network in another precision."""
        network = copy.deepcopy(self.network)
        network.precision = precision
        return FlatNetwork(network)

    def whole(self) -> "FlatNetwork":
        """Return the same network, whose passes are never split for lack of memory.

        A step that is differentiated again would hold the graphs of all chunks.
        """
        network = copy.copy(self.network)
        network.chunks = None
        return FlatNetwork(network)

    def __call__(
        self, weights: Float[Tensor, " weights"], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k"]:
        """Return the network's outputs for images with these weights."""
        parts = weights.split(self._sizes)
        named = {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }
        outputs: Tensor = functional_call(self.network, named, (images,))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftSet:
    """Distilled images, the logits of their soft labels and the learned rate; or their gradient."""

    images: Float[Tensor, "m c h w"]
    logits: Float[Tensor, "m k"]
    lr: Float[Tensor, ""]


def match(
    distilled: SoftSet,
    *,
    inner_loss: InnerLoss,
    start: Float[Tensor, " weights"],
    target: Float[Tensor, " weights"],
    num_steps: int,
    keep_every: int | None = None,
) -> tuple[Float[Tensor, ""], SoftSet]:
    """Return the matching loss L of the distilled set, and its gradient.

    Args:
        distilled: what the inner steps train on.
        inner_loss: minimised by the inner steps.
        start: w_0.
        target: w*.
        num_steps: T.
        keep_every: steps per segment, whose graphs are held together; T is fastest, None means
            2 ceil(sqrt(T)).
    """
    segments = cut(num_steps, keep_every)
    learned = (distilled.images, distilled.logits, distilled.lr)
    kept = [start]
    for segment in segments[:-1]:
        kept.append(_train(kept[-1], *learned, inner_loss=inner_loss, steps=segment))

    def distance(end: Tensor) -> Tensor:
        return (end - target).square().sum() / (start - target).square().sum()

    objective: Callable[[Tensor], Tensor] = distance
    values: list[Tensor] = []
    gradients = [torch.zeros_like(part) for part in learned]
    for segment in reversed(segments):
        leaves = [x.detach().requires_grad_() for x in (kept.pop(), *learned)]
        end = _train(*leaves, inner_loss=inner_loss, steps=segment, differentiable=True)
        values.append(objective(end))
        adjoint, *parts = torch.autograd.grad(values[-1], leaves)
        gradients = [total + part for total, part in zip(gradients, parts, strict=True)]
        objective = adjoint.dot
    images, logits, lr = gradients
    return values[0].detach(), SoftSet(images=images, logits=logits, lr=lr)


def cut(num_steps: int, keep_every: int | None) -> list[range]:
    """Split steps into segments, as `match` does: the first may be shorter, as it is run twice."""
    length = keep_every or 2 * (math.isqrt(num_steps - 1) + 1)
    ends = reversed(range(num_steps, 0, -length))
    return [range(max(0, end - length), end) for end in ends]


def _train(
    weights: Float[Tensor, " weights"],
    images: Float[Tensor, "m c h w"],
    logits: Float[Tensor, "m k"],
    lr: Float[Tensor, ""],
    *,
    inner_loss: InnerLoss,
    steps: Sequence[int],
    differentiable: bool = False,
) -> Float[Tensor, " weights"]:
    """Return the weights after some inner steps."""
    for step in steps:
        if not differentiable:
            weights = weights.detach().requires_grad_()
        loss = inner_loss(weights, images, logits, step)
        (slope,) = torch.autograd.grad(loss, weights, create_graph=differentiable)
        weights = weights - lr * slope
    return weights if differentiable else weights.detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabelLoss:
    """Cross-entropy with learned soft labels on an augmented random batch for every inner step."""

    network: FlatNetwork
    batches: Sequence[tuple[Int64[Tensor, " _"], Augmentation]]

    @classmethod
    def draw(
        cls,
        network: FlatNetwork,
        batch_size: int,
        *,
        m: int,
        num_steps: int,
        generator: torch.Generator,
        operations: Sequence[str] = OPERATIONS,
    ) -> "SoftLabelLoss":
        """Split shuffled orders of m images into batches, and draw an augmentation for each."""
        rows: list[Tensor] = []
        while len(rows) < num_steps:
            order = torch.randperm(m, generator=generator, device=generator.device)
            rows += order.split(batch_size)
        batches = rows[:num_steps]
        drawn = draw_each(generator, [len(batch) for batch in batches], operations=operations)
        return cls(network=network, batches=list(zip(batches, drawn, strict=True)))

    def __call__(
        self,
        weights: Float[Tensor, " weights"],
        images: Float[Tensor, "m c h w"],
        logits: Float[Tensor, "m k"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the mean loss of one step's batch."""
        rows, augment = self.batches[step]
        rows = rows.to(images.device)
        outputs = self.network(weights, augment(images[rows]))
        return cross_entropy(outputs, logits[rows].softmax(1))
