"""Matching the gradients of real and distilled images, class by class.

Over the parameter tensors with two or more axes, and over the outputs i of each (a convolution's
output channels, a linear layer's rows), with all other axes flattened::

    D(g, t) = sum over tensors, i of  1 - <g_i, t_i> / (|g_i| |t_i| + 1e-6)

Tensors with one axis (biases, scales and shifts of norms) are left out, as in the released code of
dataset condensation, so their gradients are never computed.
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.captured import CapturedStep
from benchmark.differentiable_augmentation import Augmentation
from benchmark.network import Network

_EPSILON = 1e-6  # added to the product of the norms, not to each


class ClassMatching:
    """The matching of single classes by an inner model, whose weights may change in between.

    Args:
        network: a classifier, through which distilled images pass.
        seen: the same classifier, for real images, perhaps in another precision.
    """

    def __init__(self, network: Network, seen: Network) -> None:
        self.network = network
        self._seen = seen
        self._steps: dict[str | None, CapturedStep] = {}

    def __call__(
        self,
        distilled: Float[Tensor, "ipc c h w"],
        real: Float[Tensor, "b c h w"],
        label: Int64[Tensor, ""],
        augment: Augmentation,
    ) -> tuple[Float[Tensor, "ipc c h w"], Float[Tensor, ""]]:
        """Return the gradient of the distance with respect to distilled images, and the distance.

        Args:
            distilled: of the class.
            real: likewise.
            label: the class.
            augment: of both.
        """
        operation = augment.operation
        if operation not in self._steps:
            match = partial(_match, self.network, self._seen, operation)
            self._steps[operation] = CapturedStep(match)
        uniform = augment.uniform.to(distilled.device)
        gradient, matched = self._steps[operation](distilled, real, label, uniform)
        return gradient, matched


def _match(
    network: Network,
    seen: Network,
    operation: str | None,
    distilled: Tensor,
    real: Tensor,
    label: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    augment = Augmentation(operation=operation, uniform=uniform)
    target = class_gradient(seen, augment(real), label)
    leaf = distilled.detach().requires_grad_()
    gradient = class_gradient(network, augment(leaf), label, differentiable=True)
    matched = distance(gradient, target)
    (of_images,) = torch.autograd.grad(matched, [leaf])
    return of_images, matched.detach()


def class_gradient(
    network: Network,
    images: Float[Tensor, "b c h w"],
    label: Int64[Tensor, ""],
    *,
    differentiable: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradient of the mean cross-entropy of images of one class.

    Args:
        network: a classifier; only parameters with two or more axes are differentiated.
        images: in the space that the network expects.
        label: their class.
        differentiable: whether the gradient will be differentiated with respect to the images.
    """
    matched = [p for p in network.parameters() if p.ndim >= 2]
    loss = cross_entropy(network(images), label.expand(len(images)))
    return torch.autograd.grad(loss, matched, create_graph=differentiable)


def distance(distilled: Sequence[Tensor], real: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return D of two gradients, given as tensors in the same order."""
    return torch.stack(
        [_one_minus_cosines(g, t) for g, t in zip(distilled, real, strict=True)]
    ).sum()


def _one_minus_cosines(g: Tensor, t: Tensor) -> Tensor:
    """Sum 1 - cosine over the rows of two gradients of one tensor."""
    g, t = g.flatten(1), t.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(g, dim=1) * torch.linalg.vector_norm(t, dim=1)
    cosines = (g * t).sum(1) / (norms + _EPSILON)
    return (1 - cosines).sum()
