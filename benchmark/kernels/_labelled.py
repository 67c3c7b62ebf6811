"""Images by class, and classifiers, for the kernels of the supervised peers."""

from dataclasses import replace
from functools import partial

import torch

from benchmark.compute import Compute
from benchmark.methods._labelled import new_inner_model
from benchmark.network import Network, Precision
from benchmark.spec import Budget, Problem

from ._setting import MEAN, STD, factories, pixels, stream


def new_classifiers(
    compute: Compute,
    *,
    side: int,
    widths: tuple[int, ...],
    num_outputs: int,
    precision: Precision = "fp32",
) -> tuple[Network, Network]:
    """Return an inner model of the supervised peers, and the twin's; see `_setting.networks`."""
    problem, of_twin = labelled_problems(compute, k=num_outputs, per_class=1, ipc=1, side=side)
    new_model = partial(new_inner_model, model="convnet", widths=widths, norm="instance")
    fast = new_model(problem, generator=stream("network"), precision=precision)
    return fast, new_model(of_twin, generator=stream("network"))


def labelled_problems(
    compute: Compute, *, k: int, per_class: int, ipc: int, side: int
) -> tuple[Problem, Problem]:
    """Return k classes of random images, of which a method makes `ipc` each, and the twin's."""
    new_network, of_twin = factories(compute, side)
    problem = Problem(
        source="random",
        images=pixels(k * per_class, side, compute),
        representations=lambda view: torch.empty(0),
        teacher=lambda images: images,
        labels=torch.arange(k * per_class, device=compute.device) // per_class,
        num_classes=k,
        mean=MEAN,
        std=STD,
        budget=Budget(k * ipc),
        new_network=new_network,
        precision=compute.precision,
    )
    return problem, replace(problem, new_network=of_twin, precision="fp32")
