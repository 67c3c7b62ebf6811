"""The class matching of DSA: gradients of real and distilled images, class by class."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.compute import Compute
from benchmark.differentiable_augmentation import draw
from benchmark.methods._labelled import RealImages
from benchmark.methods.dsa import Dsa
from benchmark.network import Network
from benchmark.spec import ImageShape
from benchmark.timing import Kernel, Outcome

from ._cost import cost_of, total
from ._labelled import distilled_images, new_classifier, new_real_images
from ._setting import plain as plainly
from ._setting import stream

__all__ = ["gradient_matching"]


def gradient_matching(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the matching of some classes with one distilled image each.

    With one image per class, an outer step of `dsa` is this matching of all classes: its inner
    models are not trained.

    Operations per image, with F for a forward pass and f for its first layer: 3 F - f for real
    ones, for the gradient of the weights. 7 F - 2 f for distilled ones: as much, and another 4 F -
    f to differentiate that gradient with respect to the image (two convolutions per layer for the
    products with the weights' part of the gradient, one for its passage through the layers, one for
    the forward pass). The head likewise, without f. Bytes: those of as many forward passes.
    """
    k, real_batch, side, widths, d = (
        (3, 6, 8, (8, 8), 5) if small else (2, 256, 32, (128, 128, 128), 100)
    )
    real = new_real_images(compute, k=k, per_class=real_batch + 1, side=side)
    images = distilled_images(compute, k=k, ipc=1, side=side)
    classifier, twin = (
        new_classifier(how, side=side, widths=widths, num_outputs=d)
        for how in (compute, plainly(compute))
    )
    settings = Dsa(real_batch=real_batch)

    def fast() -> Outcome:
        seen = replace(real, generator=stream("draws"))
        gradient, distance = settings._outer_gradient(classifier, images, seen)
        return gradient, distance

    def plain() -> Outcome:
        seen = replace(real, generator=stream("draws"))
        return _match(twin, images, seen, real_batch)

    seen, own = (
        cost_of(x, ImageShape(3, side, side)) for x in (real.seen_by(classifier), classifier)
    )
    of_real = k * real_batch
    return Kernel(
        shape=f"{k} classes, {real_batch} real images and 1 distilled each, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=total(
            seen.training(of_real),
            own.times(backbone=k * (7 * own.forward - 2 * own.first), head=7 * k * own.head),
        ),
        num_bytes=3 * of_real * seen.num_bytes + 7 * k * own.num_bytes,
        tolerance=2e-1,
        tried=(
            "With one image per class, an outer step of `dsa` is this for all classes. Real "
            "images, nearly all of the arithmetic, in the run's precision: bf16 changes their "
            "gradient by 1 to 3 %, another batch of real images by 26 to 50. Convolutions are "
            "faster in channels-last, group norms in the default layout, and the latter gain more. "
            "Pooling as a product takes an eighth of its time in bf16. 256 images on one thread "
            "take 1.15 s in fp32 and channels-last, 1.0 in the default layout, 0.89 with that "
            "pooling, 0.48 in bf16. Gradients of biases and norms, which the distance ignores, are "
            "left out, and each class is differentiated separately, so that one graph is held at a "
            "time: that saves memory, but no time."
        ),
    )


def _match(
    network: Network, images: Float[Tensor, "k ipc c h w"], real: RealImages, real_batch: int
) -> Outcome:
    """Sum the distances of all classes over all parameters, with a single backward pass."""
    parameters = list(network.parameters())
    leaf = images.detach().clone().requires_grad_()
    loss = torch.zeros((), device=images.device)
    drawn = [draw(real.generator) for _ in images]
    for c, augment in enumerate(drawn):
        real_batch_of_class = augment(real.of_class(c, real_batch))
        target = torch.autograd.grad(_loss(network, real_batch_of_class, c), parameters)
        gradient = torch.autograd.grad(
            _loss(network, augment(leaf[c]), c), parameters, create_graph=True
        )
        loss = loss + _distance(gradient, [t.detach().clone() for t in target])
    loss.backward()
    network.zero_grad()
    assert leaf.grad is not None
    return leaf.grad, loss.detach() / len(images)


def _loss(network: Network, images: Tensor, c: int) -> Tensor:
    labels = torch.full((len(images),), c, device=images.device)
    return cross_entropy(network(images), labels)


def _distance(gradient: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    distance = torch.zeros((), device=target[0].device)
    for g, t in zip(gradient, target, strict=True):
        if g.ndim > 1:
            g, t = g.reshape(len(g), -1), t.reshape(len(t), -1)
            norms = torch.norm(g, dim=1) * torch.norm(t, dim=1)
            distance = distance + torch.sum(1 - torch.sum(g * t, dim=1) / (norms + 1e-6))
    return distance
