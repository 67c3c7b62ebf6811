"""Quick evaluation of features on part of the training split: for choices, not for reports."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmark import rng
from benchmark.spec import LabelledImages, NonFiniteError, UsageError

_DRAWS = 10  # few-label sets that an accuracy is averaged over
RIDGES = np.logspace(-1, 4, 11)  # chosen by leave-one-out error


def held_out_tenth(source: LabelledImages) -> Bool[Tensor, " n"]:
    """Return a mask of the held-out images, always the same for the same dataset.

    Raises:
        UsageError: there are fewer than ten images.
    """
    n = len(source.labels)
    if n < 10:
        raise UsageError(f"{n} source images: expected 10 or more, as a tenth is held out")
    return rng.part(n, 10, "teacher", "held out", source.fingerprint).to(source.images.device)


def held_out_accuracy(
    features: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    held_out: Bool[Tensor, " n"],
    labels_per_class: int | None = None,
) -> float:
    """Return the accuracy in per cent, on held-out images, of a ridge classifier fit on the rest.

    Features are standardised on the rest; the ridge is chosen by leave-one-out error. With
    `labels_per_class`, the classifier sees only that many labels, and the accuracy is the mean over
    named draws of them.

    Raises:
        NonFiniteError: a feature is not finite, as when a teacher diverges.
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
    """Return the indices of `num` images per class, or all if there are fewer."""
    generator = rng.generator("teacher", "few labels", draw)
    order = torch.randperm(len(labels), generator=generator).numpy()
    order = order[~held_out[order]]
    return np.concatenate([order[labels[order] == label][:num] for label in np.unique(labels)])
