"""Trajectory matching: train on the distilled set for some steps, compare where the weights end.

From an expert's weights w_0, T inner steps of plain SGD on the distilled set ::

    w_{t+1} = w_t - lr g_t,        g_t = gradient at w_t of the inner loss l_t(w, images, logits)

end at w_T, which is compared with the weights w* that the expert reached later::

    L = || w_T - w* ||^2 / || w_0 - w* ||^2

The exact gradient of L for images, logits and lr (that of automatic differentiation through the
whole unroll) comes from the adjoint a_t = dL/dw_t. From ``a_T = 2 (w_T - w*) / || w_0 - w* ||^2``
each step, backwards, differentiates one number, ``<g_t, a_{t+1}>``, the slope of l_t along
a_{t+1}::

    a_t       = a_{t+1} - lr d<g_t, a_{t+1}>/dw_t
    dL/dx    -= lr d<g_t, a_{t+1}>/dx          (x: images, and logits)
    dL/dlr   -= <g_t, a_{t+1}>

So the graph of one step is all that is ever held. The weights w_t are needed in reverse: every
ceil(sqrt(T))-th is kept, and those between two kept ones are computed a second time, which costs a
first-order step each. Memory: one step's graph and about 2 sqrt(T) vectors of weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmark.differentiable_augmentation import OPERATIONS, Augmentation, draw
from benchmark.network import Network
from benchmark.spec import UsageError

InnerLoss = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Loss of (weights, distilled images, label logits) at one inner step; the same whenever called."""


class FlatNetwork:
    """A network as a function of one vector of weights, and of images.

    Raises:
        UsageError: the network keeps running statistics, which no vector of weights holds.
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

    def __call__(
        self, weights: Float[Tensor, " weights"], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k"]:
        """Return what the network with these weights says of images."""
        parts = weights.split(self._sizes)
        named = {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }
        outputs: Tensor = functional_call(self.network, named, (images,))
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftSet:
    """Distilled images, the logits of their soft labels and the student's rate; or a gradient."""

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
        inner_loss: minimised by them.
        start: w_0.
        target: w*.
        num_steps: T.
        keep_every: weights are kept before every so many steps; 1 keeps all (T vectors) and spares
            the second computation, None is ceil(sqrt(T)).
    """
    keep_every = keep_every or math.isqrt(num_steps - 1) + 1
    path = _Path(distilled, inner_loss)
    kept, weights = [], start
    for step in range(num_steps):
        if step % keep_every == 0:
            kept.append(weights)
        weights = path.advance(weights, step)
    scale = 1 / (start - target).square().sum()
    loss = scale * (weights - target).square().sum()
    path.adjoint = 2 * scale * (weights - target)
    for first in reversed(range(0, num_steps, keep_every)):
        segment = [kept.pop()]
        for step in range(first, min(first + keep_every, num_steps) - 1):
            segment.append(path.advance(segment[-1], step))
        for step in reversed(range(first, first + len(segment))):
            path.pull_back(segment.pop(), step)
    return loss, path.gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabelLoss:
    """Cross-entropy with learned soft labels on a drawn batch, augmented, for every inner step."""

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
        """Cut shuffled orders of m images into batches, and draw an augmentation for each."""
        rows: list[Tensor] = []
        while len(rows) < num_steps:
            order = torch.randperm(m, generator=generator, device=generator.device)
            rows += order.split(batch_size)
        return cls(
            network=network,
            batches=[
                (batch, draw(generator, num=len(batch), operations=operations))
                for batch in rows[:num_steps]
            ],
        )

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


class _Path:
    """Inner steps, one at a time: forwards, and backwards with the adjoint and the gradient."""

    def __init__(self, distilled: SoftSet, inner_loss: InnerLoss) -> None:
        self.images = distilled.images.detach()
        self.logits = distilled.logits.detach()
        self.lr = distilled.lr.detach()
        self.inner_loss = inner_loss
        self.gradient = SoftSet(
            images=torch.zeros_like(self.images),
            logits=torch.zeros_like(self.logits),
            lr=torch.zeros_like(self.lr),
        )
        self.adjoint = torch.empty(0)

    def advance(self, weights: Float[Tensor, " weights"], step: int) -> Float[Tensor, " weights"]:
        weights = weights.detach().requires_grad_()
        loss = self.inner_loss(weights, self.images, self.logits, step)
        (slope,) = torch.autograd.grad(loss, weights)
        return weights.detach() - self.lr * slope

    def pull_back(self, weights: Float[Tensor, " weights"], step: int) -> None:
        weights, images, logits = (
            x.detach().requires_grad_() for x in (weights, self.images, self.logits)
        )
        loss = self.inner_loss(weights, images, logits, step)
        (slope,) = torch.autograd.grad(loss, weights, create_graph=True)
        along = slope @ self.adjoint
        by_weights, by_images, by_logits = torch.autograd.grad(along, (weights, images, logits))
        self.adjoint = self.adjoint - self.lr * by_weights
        self.gradient.images.sub_(self.lr * by_images)
        self.gradient.logits.sub_(self.lr * by_logits)
        self.gradient.lr.sub_(along.detach())
