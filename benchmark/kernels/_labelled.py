"""Inputs for the class matching of DSA and IDM."""

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.compute import Compute
from benchmark.methods._labelled import RealImages, new_inner_model
from benchmark.network import Network, Precision
from benchmark.spec import ImageShape, NewNetwork, Outline

from ._setting import MEAN, STD, factories, normal, pixels, stream


def new_classifiers(
    compute: Compute,
    *,
    side: int,
    widths: tuple[int, ...],
    num_outputs: int,
    precision: Precision = "fp32",
) -> tuple[Network, Network]:
    """Return an inner model of the supervised peers, and the twin's; see `_setting.networks`."""

    def new_classifier(new_network: NewNetwork, precision: Precision) -> Network:
        outline = Outline(
            source="random",
            shape=ImageShape(3, side, side),
            N=num_outputs,
            num_images=num_outputs,
            class_sizes=(1,) * num_outputs,
            new_network=new_network,
        )
        settings = {"widths": widths, "norm": "instance"}
        return new_inner_model(
            outline, "convnet", stream("network"), precision=precision, **settings
        )

    fast, plain = factories(compute, side)
    return new_classifier(fast, precision), new_classifier(plain, "fp32")


def new_real_images(compute: Compute, *, k: int, per_class: int, side: int) -> RealImages:
    """Return k classes of random images; give it a fresh generator before drawing from it."""
    images = pixels(k * per_class, side, compute)
    rows = torch.arange(len(images), device=compute.device)
    mean, std = (torch.tensor(x, device=compute.device).view(-1, 1, 1) for x in (MEAN, STD))
    return RealImages(
        images=images,
        labels=rows // per_class,
        rows=rows.split(per_class),
        mean=mean,
        std=std,
        generator=stream("real images"),
        precision=compute.precision,
    )


def distilled_images(
    compute: Compute, *, k: int, ipc: int, side: int
) -> Float[Tensor, "k ipc c h w"]:
    """Return normalised distilled images."""
    return normal("distilled", k, ipc, 3, side, side, compute=compute)
