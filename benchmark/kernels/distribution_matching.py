"""The class matching of IDM: mean features and cross-entropy of real and distilled images."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from benchmark.compute import Compute
from benchmark.differentiable_augmentation import draw
from benchmark.methods._labelled import RealImages
from benchmark.methods._network_queue import QueuedModel
from benchmark.methods.idm import Idm, Recipe
from benchmark.network import Network
from benchmark.spec import ImageShape
from benchmark.timing import Kernel, Outcome

from ._cost import cost_of, total
from ._labelled import distilled_images, new_classifier, new_real_images
from ._setting import plain as plainly
from ._setting import stream

__all__ = ["distribution_matching"]


def distribution_matching(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the matching of some classes with ten canvases (forty distilled views) each.

    An outer step of `idm` is this matching of all classes, and ordinary training steps of inner
    models on real images.

    Operations: a forward pass F of the backbone for each real image, and 2 F for each distilled
    view (no gradient of the weights); likewise for its head. Bytes: those of as many forward
    passes.
    """
    k, ipc, real_batch, side, widths, d = (
        (3, 2, 6, 8, (8, 8), 5) if small else (2, 10, 256, 32, (128, 128, 128), 100)
    )
    real = new_real_images(compute, k=k, per_class=real_batch + 1, side=side)
    images = distilled_images(compute, k=k, ipc=ipc, side=side)
    classifier, twin = (
        new_classifier(how, side=side, widths=widths, num_outputs=d)
        for how in (compute, plainly(compute))
    )
    settings, recipe = Idm(), Recipe(cross_entropy_weight=0.1, real_batch=real_batch)
    model = QueuedModel(classifier, lr=0.01, momentum=0.9, weight_decay=5e-4)
    model.load_state_dict({**model.state_dict(), "correct": torch.tensor(30), "seen": 100})
    weight = recipe.cross_entropy_weight * float(model.accuracy)

    def fast() -> Outcome:
        seen = replace(real, generator=stream("draws"))
        gradient, parts = settings._outer_gradient(model, images, seen, recipe)
        return gradient, parts["objective"]

    def plain() -> Outcome:
        seen = replace(real, generator=stream("draws"))
        return _match(twin.requires_grad_(False), images, seen, real_batch, weight)

    seen, own = (
        cost_of(x, ImageShape(3, side, side)) for x in (real.seen_by(classifier), classifier)
    )
    of_real, of_views = k * real_batch, k * 2 * 4 * ipc
    return Kernel(
        shape=f"{k} classes, {real_batch} real images, {4 * ipc} views each, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=total(
            seen.times(backbone=of_real * seen.forward),
            own.times(backbone=of_views * own.forward, head=of_views * own.head),
        ),
        num_bytes=of_real * seen.num_bytes + of_views * own.num_bytes,
        tolerance=2e-2,
        tried=(
            "An outer step of `idm` is this for all classes, and ordinary steps of inner models. "
            "Distilled views pass through the network once instead of twice, several classes "
            "together, and real images without a graph: with ten canvases per class that is 336 "
            "image passes instead of 416, so at most 1.24 times faster. Real images in the run's "
            "precision, and pooling as a product: see `gradient-matching`."
        ),
    )


def _match(
    network: Network,
    images: Float[Tensor, "k ipc c h w"],
    real: RealImages,
    real_batch: int,
    weight: float,
) -> Outcome:
    """Match class by class: features first, then the classifier on the same views again."""
    gradients, objective = [], torch.zeros((), device=images.device)
    drawn = [draw(real.generator) for _ in images]
    for c, (canvases, augment) in enumerate(zip(images, drawn, strict=True)):
        leaf = canvases.detach().clone().requires_grad_()
        wanted = network.features(augment(real.of_class(c, real_batch))).detach()
        views = augment(_quarters(leaf))
        features = network.features(views)
        labels = torch.full((len(views),), c, device=images.device)
        loss = torch.sum((wanted.mean(0) - features.mean(0)) ** 2)
        loss = loss + weight * cross_entropy(network(views), labels)
        loss.backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
        objective += loss.detach()
    return torch.stack(gradients), objective / len(images)


def _quarters(canvases: Tensor) -> Tensor:
    h, w = canvases.shape[2] // 2, canvases.shape[3] // 2
    parts = [canvases[:, :, y : y + h, x : x + w] for x in (0, w) for y in (0, h)]
    enlarge = [
        interpolate(part, size=(2 * h, 2 * w), mode="bilinear", align_corners=False)
        for part in parts
    ]
    return torch.cat(enlarge)
