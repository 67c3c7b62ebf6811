"""Matching the mean features of real and distilled images, and partition-and-expand."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.network import Network

REAL_CHUNK = 1024  # real images in one forward pass; on a CPU, 4 096 took 2.4 times as long


def expand(canvases: Float[Tensor, "b c h w"]) -> Float[Tensor, "b4 c h w"]:
    """Return the quarters of every canvas, upsampled to its size.

    First the top left quarters of all canvases, then bottom left, top right, bottom right.
    """
    h, w = canvases.shape[2] // 2, canvases.shape[3] // 2
    left, right = canvases[..., :w], canvases[..., w:]
    quarters = [half[:, :, rows] for half in (left, right) for rows in (slice(h), slice(h, None))]
    size = (2 * h, 2 * w)
    return interpolate(torch.cat(quarters), size=size, mode="bilinear", align_corners=False)


def shrink(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Return images at half their size, each pixel the mean of four."""
    return interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=False)


@torch.no_grad()
def mean_features(
    network: Network, batches: Sequence[Float[Tensor, "_ c h w"]]
) -> Float[Tensor, "k p"]:
    """Return the mean of the backbone's features over each batch of real images."""
    chunks = torch.cat(list(batches)).split(REAL_CHUNK)
    features = torch.cat([network.features(chunk) for chunk in chunks])
    return torch.stack([part.mean(0) for part in features.split([len(b) for b in batches])])


def feature_distance(
    distilled: Float[Tensor, "g b p"], real: Float[Tensor, "g p"]
) -> Float[Tensor, ""]:
    """Return the squared distance of mean features, summed over g classes of b images each."""
    return (distilled.mean(1) - real).square().sum()
