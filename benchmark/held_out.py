"""A quick look at features with part of the training split: for choices, never for reports."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmark import rng
from benchmark.images import random_part
from benchmark.spec import LabelledImages, NonFiniteError, UsageError

_DRAWS = 10  # sets of few labels that an accuracy is the mean over
RIDGES = np.logspace(-1, 4, 11)  # of which leave-one-out error chooses


def held_out_tenth(source: LabelledImages) -> Bool[Tensor, " n"]:
    """Return which images are held out: always the same ones of the same dataset.

    Raises:
        UsageError: there are so few that a tenth is none.
    """
    if len(source.labels) < 10:
        raise UsageError(
            f"{len(source.labels)} source images: expected 10 or more, as a tenth is held out"
        )
    return random_part(source, 10, "teacher", "held out").to(source.images.device)


def held_out_accuracy(
    features: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    held_out: Bool[Tensor, " n"],
    labels_per_class: int | None = None,
) -> float:
    """Return the accuracy in percent, on held-out images, of a ridge classifier fitted on the rest.

    Features are standardised on the rest; leave-one-out error chooses the ridge. With
    `labels_per_class`, the classifier sees so many labels only, and the accuracy is the mean over
    named draws of them.

    Raises:
        NonFiniteError: some feature is no number, as of a teacher that diverges.
    """
    if not features.isfinite().all():
        raise NonFiniteError("the teacher's features of source images are not finite")
    x, y, held = (tensor.cpu().numpy() for tensor in (features, labels, held_out))
    x = StandardScaler().fit(x[~held]).transform(x)
    draws = [np.flatnonzero(~held)]
    if labels_per_class is not None:
        draws = [_few(y, held, labels_per_class, draw) for draw in range(_DRAWS)]
    probes = [RidgeClassifierCV(RIDGES).fit(x[draw], y[draw]) for draw in draws]
    return round(100 * float(np.mean([probe.score(x[held], y[held]) for probe in probes])), 2)


def _few(
    labels: Shaped[np.ndarray, " n"], held_out: Shaped[np.ndarray, " n"], num: int, draw: int
) -> Shaped[np.ndarray, " few"]:
    """Return the numbers of `num` images a class (fewer where there are not so many)."""
    generator = rng.generator("teacher", "few labels", draw)
    order = torch.randperm(len(labels), generator=generator).numpy()
    order = order[~held_out[order]]
    return np.concatenate([order[labels[order] == label][:num] for label in np.unique(labels)])
