"""The class matching of IDM: mean features and cross-entropy of real and distilled images."""

from dataclasses import replace

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._labelled import RealImages
from benchmark.methods._network_queue import QueuedModel
from benchmark.methods.idm import Idm, Recipe

from ._labelled import labelled_problems, new_classifiers
from ._matching import (
    distribution_matching_operations,
    half_train,
    image_costs,
    match_features_plainly,
)
from ._setting import normal, stream

__all__ = ["distribution_matching"]


def distribution_matching(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the matching of some classes with ten canvases (forty distilled views) each.

    An outer step of `idm` is this matching of all classes, and training steps of inner models on
    real images, see `idm-step`.

    Operations: see `_matching`. Bytes: those of as many forward passes.
    """
    k, ipc, real_batch, side, widths, d = (
        (3, 2, 6, 8, (8, 8), 5) if small else (2, 10, 256, 32, (128, 128, 128), 100)
    )
    problem, _ = labelled_problems(compute, k=k, per_class=real_batch + 1, ipc=ipc, side=side)
    real = RealImages.of(problem, stream("real images"))
    images = normal("distilled", k, ipc, 3, side, side, compute=compute)
    classifier, twin = new_classifiers(compute, side=side, widths=widths, num_outputs=d)
    settings, recipe = Idm(), Recipe(cross_entropy_weight=0.1, real_batch=real_batch)
    model = QueuedModel(classifier, lr=0.01, momentum=0.9, weight_decay=5e-4)
    half_train(model)
    weight = recipe.cross_entropy_weight * float(model.accuracy)

    def fast() -> Outcome:
        seen = replace(real, generator=stream("draws", compute.device))
        gradient, parts = settings._outer_gradient(model, images, seen, recipe)
        return gradient, parts["objective"]

    def plain() -> Outcome:
        seen = replace(real, generator=stream("draws", compute.device))
        return match_features_plainly(twin.requires_grad_(False), images, seen, real_batch, weight)

    seen, own = image_costs(compute, k=d, side=side, widths=widths)
    of_real, of_views = k * real_batch, k * 4 * ipc
    return Kernel(
        shape=f"{k} classes, {real_batch} real images, {4 * ipc} views each, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=distribution_matching_operations(seen, own, of_real=of_real, of_views=of_views),
        num_bytes=of_real * seen.num_bytes + 2 * of_views * own.num_bytes,
        tolerance=0.02 if compute.precision == "bf16" else 1e-3,
        tried=(
            "An outer step of `idm` is this for all classes, and ordinary steps of inner models. "
            "Distilled views pass through the network once instead of twice, several classes "
            "together, and real images without a graph: with ten canvases per class that is 336 "
            "image passes instead of 416, so at most 1.24 times faster. Real images in the run's "
            "precision, and pooling as a product: see `gradient-matching`. Batches with the same "
            "operation are augmented together, and the rows of all classes drawn by one sort: no "
            "gain here, but by the plan for an H100, where launches of class by class were a "
            "third of it, a published set at one canvas a class takes 35 minutes instead of 42."
        ),
    )
