"""One outer step of `idm`, with the training of networks of its queue."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.compute import Compute
from benchmark.methods._labelled import RealImages
from benchmark.methods._network_queue import QueuedModel
from benchmark.methods.idm import Idm, Recipe
from benchmark.network import Network
from benchmark.spec import Outline, Problem
from benchmark.timing import Kernel, Outcome

from ._cost import total
from ._matching import distribution_matching_operations, match_features_plainly
from ._setting import obvious
from ._setting import plain as plainly
from ._supervised_step import first_step, image_costs, labelled_problem, last_gradient

__all__ = ["idm_step"]


@dataclass(frozen=True, kw_only=True)
class _Plain(Idm):
    """The same loop around straightforward matching."""

    def _new_inner_model(self, problem: Problem | Outline, generator: torch.Generator) -> Network:
        return obvious(super()._new_inner_model(problem, generator))

    def _outer_gradient(
        self, model: QueuedModel, images: Tensor, real: RealImages, recipe: Recipe
    ) -> tuple[Tensor, dict[str, Tensor]]:
        weight = recipe.cross_entropy_weight * float(model.accuracy)
        gradient, objective = match_features_plainly(
            model.network.requires_grad_(False), images, real, recipe.real_batch, weight
        )
        model.network.requires_grad_(True)
        return gradient, {"objective": objective}


def idm_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the step for some classes with ten canvases each, and a training step of one model.

    Operations: those of `distribution-matching`, and 3 F - f for every image of a training step.
    Bytes: those of as many forward passes.
    """
    k, ipc, real_batch, inner_batch, side, widths = (
        (3, 2, 6, 9, 8, (8, 8)) if small else (2, 10, 256, 256, 32, (128, 128, 128))
    )
    method = Idm(
        recipe="cifar100-ipc10",
        real_batch=real_batch,
        inner_batch=inner_batch,
        inner_widths=widths,
        queue_size=1,
        initial_models=1,
        trained_models=1,
        inner_steps=1,
    )
    problem, of_twin = (
        labelled_problem(how, k=k, per_class=real_batch + 1, ipc=ipc, side=side)
        for how in (compute, plainly(compute))
    )

    def stepped(method: Idm, problem: Problem) -> Outcome:
        change, loop = first_step(method, problem)
        (model,) = loop.state["queue"].models
        return (change, *last_gradient(model.network))

    seen, own = image_costs(compute, k=k, side=side, widths=widths)
    of_real, of_views = k * real_batch, k * 4 * ipc
    return Kernel(
        shape=(
            f"{k} classes, {real_batch} real images, {4 * ipc} views each, a step of one model on "
            f"{inner_batch} images, ConvNet {widths}"
        ),
        fast=lambda: stepped(method, problem),
        plain=lambda: stepped(_Plain(**vars(method)), of_twin),
        operations=total(
            distribution_matching_operations(seen, own, of_real=of_real, of_views=of_views),
            own.training(inner_batch),
        ),
        num_bytes=of_real * seen.num_bytes + (2 * of_views + 3 * inner_batch) * own.num_bytes,
        tolerance=2e-2,
        tried=(
            "The matching as in `distribution-matching`, except that cross-entropy weighs nothing "
            "as long as a network has not been trained. Training is the same code in the twin. As "
            "published, a step at ten canvases a class has 50 times the classes and 100 times the "
            "training, which is in fp32, so that less is gained."
        ),
    )
