"""Matching the mean features of real and distilled images, and partition-and-expand."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.network import Network

_CHUNK = 512  # real images in one forward pass, as a whole class may be drawn


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
def mean_features(network: Network, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " p"]:
    """Return the mean of the backbone's features of real images."""
    parts = [network.features(chunk).sum(0) for chunk in images.split(_CHUNK)]
    return torch.stack(parts).sum(0) / len(images)


def feature_distance(
    distilled: Float[Tensor, "g b p"], real: Float[Tensor, "g p"]
) -> Float[Tensor, ""]:
    """Return the squared distance of mean features, summed over g classes of b images each."""
    return (distilled.mean(1) - real).square().sum()
