"""Labelled features like those of networks: correlated, differently scaled, not separable."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.compute import Compute

from ._setting import normal


def labelled_features(
    compute: Compute, *, n: int, p: int, k: int
) -> tuple[Float[Tensor, "n p"], Int64[Tensor, " n"]]:
    """Return features of n images in k equal classes whose distributions overlap."""
    labels = torch.arange(n, device=compute.device) % k
    mix = normal("mix", p, p, compute=compute) / p**0.5
    noise = normal("noise", n, p, compute=compute) @ mix + normal("more", n, p, compute=compute)
    centres = normal("centres", k, p, compute=compute) * (3.0 / p**0.5)
    scale = torch.logspace(-1, 1, p, device=compute.device)
    return (centres[labels] + noise) * scale + 3 * scale, labels
