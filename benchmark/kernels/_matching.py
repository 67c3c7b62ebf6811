"""Straightforward class matching of DSA and IDM, and what counting the fast one needs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from benchmark.compute import Compute
from benchmark.differentiable_augmentation import draw_each
from benchmark.methods._labelled import RealImages
from benchmark.methods._network_queue import QueuedModel
from benchmark.network import Network
from benchmark.spec import ImageShape
from benchmark.timing import Operations

from ._cost import ImageCost, cost_of, total
from ._labelled import new_classifiers


def match_gradients_plainly(
    network: Network, images: Float[Tensor, "k ipc c h w"], real: RealImages, real_batch: int
) -> tuple[Float[Tensor, "k ipc c h w"], Float[Tensor, ""]]:
    """Sum the distances of all classes over all parameters, with a single backward pass."""
    parameters = list(network.parameters())
    leaf = images.detach().clone().requires_grad_()
    loss = torch.zeros((), device=images.device)
    drawn = draw_each(real.generator, [1] * len(images))  # like the fast ones
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


def match_features_plainly(
    network: Network,
    images: Float[Tensor, "k ipc c h w"],
    real: RealImages,
    real_batch: int,
    weight: float,
) -> tuple[Float[Tensor, "k ipc c h w"], Float[Tensor, ""]]:
    """Match class by class: features first, then the classifier on the same views again."""
    gradients, objective = [], torch.zeros((), device=images.device)
    drawn = draw_each(real.generator, [1] * len(images))  # like the fast ones
    rows = real.draw_rows_of_each_class(real_batch)
    for c, (canvases, augment) in enumerate(zip(images, drawn, strict=True)):
        leaf = canvases.detach().clone().requires_grad_()
        (batch,) = real.batches([rows[c]])
        wanted = network.features(augment(batch)).detach()
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


def gradient_matching_operations(
    real: ImageCost, distilled: ImageCost, *, of_real: int, of_distilled: int
) -> Operations:
    """Count the operations for so many real and distilled images.

    Per image, with F for a forward pass and f for its first layer: 3 F - f for real ones, for the
    gradient of the weights. 7 F - 2 f for distilled ones: as much, and another 4 F - f to
    differentiate that gradient with respect to the image (two convolutions per layer for the
    products with the weights' part of the gradient, one for its passage through the layers, one for
    the forward pass). The head likewise, without f.
    """
    return total(
        real.training(of_real),
        distilled.times(
            backbone=of_distilled * (7 * distilled.forward - 2 * distilled.first),
            head=7 * of_distilled * distilled.head,
        ),
    )


def distribution_matching_operations(
    real: ImageCost, distilled: ImageCost, *, of_real: int, of_views: int
) -> Operations:
    """Count the operations for so many real images and distilled views.

    A forward pass F of the backbone for each real image, and 2 F for each distilled view (no
    gradient of the weights); likewise for its head.
    """
    passes = 2 * of_views
    return total(
        real.times(backbone=of_real * real.forward),
        distilled.times(backbone=passes * distilled.forward, head=passes * distilled.head),
    )


def half_train(model: QueuedModel) -> None:
    """Give cross-entropy a weight: that of a network with an accuracy of 30 %."""
    model.load_state_dict({**model.state_dict(), "correct": torch.tensor(30), "seen": 100})


def image_costs(
    compute: Compute, *, k: int, side: int, widths: tuple[int, ...]
) -> tuple[ImageCost, ImageCost]:
    """Return the costs of a real image that is matched, and of any other."""
    shape = ImageShape(3, side, side)
    matched, in_fp32 = new_classifiers(
        compute, side=side, widths=widths, num_outputs=k, precision=compute.precision
    )
    return cost_of(matched, shape), cost_of(in_fp32, shape)


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


def _quarters(canvases: Tensor) -> Tensor:
    h, w = canvases.shape[2] // 2, canvases.shape[3] // 2
    parts = [canvases[:, :, y : y + h, x : x + w] for x in (0, w) for y in (0, h)]
    enlarge = [
        interpolate(part, size=(2 * h, 2 * w), mode="bilinear", align_corners=False)
        for part in parts
    ]
    return torch.cat(enlarge)
