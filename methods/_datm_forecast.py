"""Counts of the work of trajectory matching: experts once, and the outer steps of each set."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.spec import Problem
from benchmark.workload import DRAW, Forecast, Work

from ._datm_recipes import Recipe
from ._experts import Snapshots
from ._graphs_at_once import graphs_at_once
from ._supervised_forecast import classifier, trained
from ._trajectory import FlatNetwork, cut

_GSAM = 2  # gradients in a step of an expert
_UNROLLED = 3  # training passes of a step with its graph, and back through it: 9 F - 3 f


def trajectory_forecast(
    method: Any, problem: Problem, recipe: Recipe, made: FlatNetwork
) -> Forecast:
    """Count T inner steps in segments; all but the last segment are first run without a graph.

    The whitening's covariance of n images of x numbers takes 2 n x x operations, its eigenvectors
    about 9 x^3, and applying it 4 n x x, all in double precision.

    Args:
        method: with the lengths of loops.
        problem: as far as it is known.
        recipe: of the trajectories.
        made: the network of the trajectories.
    """
    widths, norm = recipe.inner_widths or None, method.inner_norm
    expert = classifier(problem, method.inner_model, widths=widths, norm=norm)
    unrolled = replace(expert, precision=None)  # `Datm.distill`
    num, epochs, size = method.num_experts, method.expert_epochs, method.expert_batch
    snapshots = Snapshots(Path(), made.num_weights, method.expert_storage)
    n, x, m = len(problem.images), problem.shape.numel, problem.budget.N
    batch, T = min(recipe.inner_batch, m), recipe.inner_steps  # noqa: N806 - as in `_trajectory`
    keep_every = method.keep_every or graphs_at_once(
        made.at(problem.precision), (batch, *problem.images.shape[1:]), num_steps=T
    )
    segments = cut(T, keep_every)
    passes = method.outer_steps * (T - len(segments[-1]) + _UNROLLED * T)
    asked = m * num + n if recipe.initial_images == "correct" else m
    return Forecast(
        work=(
            Work(network=expert, forward=asked, batch=size, products=2 * 4 * n * x * x),
            Work(
                network=unrolled,
                training=passes * batch,
                batch=batch,
                graphs=2 * len(segments[-1]),  # of a step, and of its gradient
                splits=False,
                operators=3 * method.outer_steps * T * DRAW * bool(method.augmentations),
            ),
        ),
        once=(
            Work(products=2 * (2 * n * x * x + 9 * x**3)),
            trained(
                expert,
                steps=_GSAM * num * epochs * math.ceil(n / size),
                batch=size,
                augmentations=method.augmentations,
            ),
        ),
        pairs=m,
        held=4 * n * x + 2 * 4 * made.num_weights * len(segments),
        disk=snapshots.num_bytes(num, epochs),
    )
