"""Labelled features, and a probe fitted to all of them."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.compute import Compute
from benchmark.probes.linear import Classifiers, Probe

from ._setting import BareLoop, normal, stream


def labelled_features(
    compute: Compute, *, n: int, p: int, k: int
) -> tuple[Float[Tensor, "n p"], Int64[Tensor, " n"]]:
    """Return features of n images in k equal classes whose distributions overlap.

    Like those of networks they are correlated and differently scaled.
    """
    labels = torch.arange(n, device=compute.device) % k
    mix = normal("mix", p, p, compute=compute) / p**0.5
    noise = normal("noise", n, p, compute=compute) @ mix + normal("more", n, p, compute=compute)
    centres = normal("centres", k, p, compute=compute) * (3.0 / p**0.5)
    scale = torch.logspace(-1, 1, p, device=compute.device)
    return (centres[labels] + noise) * scale + 3 * scale, labels


def fitted(
    probe: Probe,
    features: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    *,
    k: int,
    compute: Compute,
) -> Classifiers:
    """Return the one classifier that a probe fits to all labels."""
    return probe.fit(
        features,
        labels,
        subsets=torch.arange(len(labels), device=compute.device)[None],
        num_classes=k,
        generator=stream("probe"),
        checkpoint=BareLoop(),
        precision=compute.precision,
    )
