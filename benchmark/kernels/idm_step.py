"""One outer step of `idm`, with the training of networks of its queue."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.methods._labelled import RealImages
from benchmark.methods._network_queue import QueuedModel
from benchmark.methods.idm import Idm, Recipe
from benchmark.spec import Problem

from ._cost import total
from ._labelled import labelled_problems
from ._matching import (
    distribution_matching_operations,
    half_train,
    image_costs,
    match_features_plainly,
)
from ._supervised_step import last_gradient, one_step

__all__ = ["idm_step"]


@dataclass(frozen=True, kw_only=True)
class _Plain(Idm):
    """The same loop around straightforward matching."""

    def _outer_gradient(
        self, model: QueuedModel, images: Tensor, real: RealImages, recipe: Recipe
    ) -> tuple[Tensor, dict[str, Tensor]]:
        weight = recipe.cross_entropy_weight * float(model.accuracy)
        gradient, objective = match_features_plainly(
            model.network.requires_grad_(False), images, real, recipe.real_batch, weight
        )
        model.network.requires_grad_(True)
        return gradient, {"objective": objective}


def _prepare(state: Mapping[str, Any]) -> None:
    (model,) = state["queue"].models
    half_train(model)


def idm_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return a step for some classes with ten canvases each, and a training step of one model.

    It is the second outer step, before which no network is added.

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
    problem, of_twin = labelled_problems(compute, k=k, per_class=real_batch + 1, ipc=ipc, side=side)

    def stepped(method: Idm, problem: Problem) -> Outcome:
        change, loop = one_step(method, problem, index=1, prepare=_prepare)
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
        tolerance=0.015 if compute.precision == "bf16" else 1e-3,
        tried=(
            "The matching as in `distribution-matching`. Training is the same code in the twin. As "
            "published, a step at ten canvases a class has 50 times the classes and 100 times the "
            "training, which is in fp32, so that less is gained. At the rates that the plan "
            "assumes for an H100, CUDA graphs would take a twentieth off that training."
        ),
    )
