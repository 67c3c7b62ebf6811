"""One step of the Barlow Twins teacher, augmentation included."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from benchmark import augment
from benchmark.augment import RandomAugmentation
from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.network import Network
from benchmark.spec import ImageShape
from benchmark.teachers._fit import new_optimizer
from benchmark.teachers.barlow_twins import BarlowTwins, new_projector
from benchmark.timing import RATES, Operations

from ._cost import cost_of, total
from ._setting import BareLoop, moved, networks, pixels, stream

__all__ = ["barlow_twins_step"]


def barlow_twins_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the first step of pretraining on one batch.

    Operations, for two augmentations of each image: three passes of the backbone, whose input has
    no gradient, and of the projector's three layers, 2 (p h + h h + h o) per image; for the
    correlation of b projections of o numbers, 2 b o o forward and twice that backward. Bytes: those
    of three passes of the backbone for each augmentation.
    """
    b, side, width, hidden = (8, 16, 0.125, 16) if small else (64, 32, 1.0, 2048)
    images = pixels(b, side, compute)
    teacher, twin = networks(compute, side, "resnet18", 1, width=width)
    recipe = BarlowTwins(
        batch_size=b,
        warmup_epochs=0,
        projector_hidden=hidden,
        projector_output=hidden,
    )

    def fast() -> Outcome:
        trained = deepcopy(teacher)
        recipe.pretrain(
            trained,
            images=images,
            labels=None,
            probe=lambda: 0.0,
            generator=stream("teacher", compute.device),
            checkpoint=BareLoop(1),
        )
        return moved(teacher.backbone, trained.backbone)

    def plain() -> Outcome:
        trained = deepcopy(twin).train()
        _step(trained, images, recipe)
        return moved(twin.backbone, trained.backbone)

    cost = cost_of(teacher, ImageShape(3, side, side))
    layers = 2 * (teacher.num_features * hidden + 2 * hidden * hidden)
    products: Operations = {RATES["matrix product", compute.precision]: 3 * 2 * b * layers}
    correlation: Operations = {"matrix product fp32": 3 * 2 * b * hidden**2}
    return Kernel(
        shape=f"{b} images of 3x{side}x{side}, ResNet-18 of width {width:g}, projector {hidden}",
        fast=fast,
        plain=plain,
        operations=total(cost.training(2 * b, head=False), products, correlation),
        num_bytes=3 * 2 * b * cost.num_bytes,
        # fp32: at full size it is 1e-5 or 1e-3, by the layout
        tolerance=0.3 if compute.precision == "bf16" else 1e-3 if small else 1e-2,
        tried=(
            "Augmentation of the whole batch at once instead of image by image; bf16 for backbone "
            "and projector, and channels-last, where that is faster. The two augmentations stay "
            "separate passes, as batch norm must see one at a time."
        ),
    )


def _step(network: Network, images: UInt8[Tensor, "b 3 h w"], recipe: BarlowTwins) -> None:
    """Train a backbone on one batch."""
    generator = stream("teacher", images.device)
    hidden, output = recipe.projector_hidden, recipe.projector_output
    projector = new_projector(network.num_features, hidden, output, generator).to(images.device)
    module = nn.ModuleDict({"backbone": network.backbone, "projector": projector})
    optimizer = new_optimizer(recipe, module)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    batch = images[order] / 255
    first = recipe._augmentation(0.0)
    projections = [
        projector(network.features(_augmented(batch, settings, generator)))
        for settings in (first, replace(first, solarise=recipe.solarise))
    ]
    loss = recipe.loss_scale * _loss(*projections, weight=recipe.off_diagonal_weight)
    loss.backward()
    optimizer.step()


def _augmented(
    images: Float[Tensor, "b 3 h w"], settings: RandomAugmentation, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Augment images one by one, as `settings` would draw it."""
    boxes = augment.draw_boxes(images, settings.crop_scale, settings.crop_ratio, generator)
    flips = _chosen(images, settings.flip, generator)
    jitter = settings._draw_jitter(images, generator)
    greys = _chosen(images, settings.grey, generator)
    inverts = _chosen(images, settings.solarise, generator) if settings.solarise else greys & False
    done = []
    for i, image in enumerate(images):
        x = tv.resized_crop(image, *boxes[i].tolist(), list(image.shape[1:]), antialias=False)
        x = tv.horizontal_flip(x) if flips[i] else x
        for adjust, factors in jitter:
            x = _ADJUST[adjust](x, float(factors[i]))
        x = tv.rgb_to_grayscale(x, num_output_channels=3) if greys[i] else x
        done.append(tv.solarize(x, 0.5) if inverts[i] else x)
    return torch.stack(done)


_ADJUST: Mapping[Callable[..., Tensor], Callable[[Tensor, float], Tensor]] = {
    augment.adjust_brightness: tv.adjust_brightness,
    augment.adjust_contrast: tv.adjust_contrast,
    augment.adjust_saturation: tv.adjust_saturation,
    augment.adjust_hue: tv.adjust_hue,
}


def _chosen(images: Tensor, probability: float, generator: torch.Generator) -> Bool[Tensor, " b"]:
    return augment._chosen(images, probability, generator)


def _loss(a: Float[Tensor, "b o"], b: Float[Tensor, "b o"], *, weight: float) -> Float[Tensor, ""]:
    """Return the Barlow Twins loss, selecting parts of the correlation matrix by a mask."""
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b))
    correlation = a.T @ b / len(a)
    identity = torch.eye(len(correlation), device=a.device)
    squares = (correlation - identity) ** 2
    return squares[identity.bool()].sum() + weight * squares[~identity.bool()].sum()
