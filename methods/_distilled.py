"""The optimised pairs: as plain tensors, or as coefficients over small bases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.spec import ImageShape, TrainingSet


@runtime_checkable
class Distilled(Protocol):
    """m distilled images and, for each of v views, their m target representations.

    Targets are stored as codes, which `targets` decodes to representations.
    """

    codes: Float[Tensor, "v m q"]

    def parameters(self) -> list[Tensor]:
        """Return the tensors that the outer loop optimises."""

    def images(self, index: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b c h w"]:
        """Return some distilled images, or all."""

    def targets(self, codes: Float[Tensor, "... q"]) -> Float[Tensor, "... d"]:
        """Return the representations that codes decode to."""

    def rescale(self, scale: Float[Tensor, "c 1 1"], shift: Float[Tensor, "c 1 1"]) -> None:
        """Replace every pixel x by `scale` x + `shift`, permanently."""

    def stored(self, codes: Float[Tensor, "v m q"]) -> dict[str, Tensor]:
        """Return the tensors to store, including the given codes of some views."""


@dataclass
class Pairs:
    """Distilled images and representations as they are (KRR-ST)."""

    pixels: Float[Tensor, "m c h w"]
    codes: Float[Tensor, "v m d"]

    def parameters(self) -> list[Tensor]:
        """See `Distilled.parameters`."""
        return [self.pixels, self.codes]

    def images(self, index: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b c h w"]:
        """See `Distilled.images`."""
        return self.pixels if index is None else self.pixels[index]

    def targets(self, codes: Float[Tensor, "... q"]) -> Float[Tensor, "... d"]:
        """See `Distilled.targets`."""
        return codes

    def stored(self, codes: Float[Tensor, "v m d"]) -> dict[str, Tensor]:
        """See `Distilled.stored`."""
        return {"images": self.pixels, "targets": codes}

    def rescale(self, scale: Float[Tensor, "c 1 1"], shift: Float[Tensor, "c 1 1"]) -> None:
        """See `Distilled.rescale`."""
        self.pixels = self.pixels * scale + shift


@dataclass
class Bases:
    """Coefficients over image bases at reduced resolution and over representation bases.

    ``X = upsample(C_x B_x + mean_x)`` (bilinear) and ``Y = C_y B_y + mean_y``: `image_bases` is
    B_x, `image_coefficients` C_x, `target_bases` B_y and `codes` C_y, for each view. The means are
    fixed; everything else is optimised.
    """

    shape: ImageShape
    image_bases: Float[Tensor, "u c2 h2 w2"]
    image_mean: Float[Tensor, "c2 h2 w2"]
    image_coefficients: Float[Tensor, "m u"]
    target_bases: Float[Tensor, "q d"]
    target_mean: Float[Tensor, " d"]
    codes: Float[Tensor, "v m q"]

    def parameters(self) -> list[Tensor]:
        """See `Distilled.parameters`."""
        return [self.image_bases, self.image_coefficients, self.target_bases, self.codes]

    def images(self, index: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b c h w"]:
        """See `Distilled.images`."""
        chosen = self.image_coefficients if index is None else self.image_coefficients[index]
        small = torch.addmm(self.image_mean.flatten(), chosen, self.image_bases.flatten(1))
        return interpolate(
            small.unflatten(1, self.image_mean.shape),
            size=(self.shape.h, self.shape.w),
            mode="bilinear",
            align_corners=False,
        )

    def targets(self, codes: Float[Tensor, "... q"]) -> Float[Tensor, "... d"]:
        """See `Distilled.targets`."""
        return codes @ self.target_bases + self.target_mean

    def stored(self, codes: Float[Tensor, "v m q"]) -> dict[str, Tensor]:
        """See `Distilled.stored`."""
        return {
            "image_bases": self.image_bases,
            "image_mean": self.image_mean,
            "image_coefficients": self.image_coefficients,
            "target_bases": self.target_bases,
            "target_mean": self.target_mean,
            "target_coefficients": codes,
        }

    def rescale(self, scale: Float[Tensor, "c 1 1"], shift: Float[Tensor, "c 1 1"]) -> None:
        """See `Distilled.rescale`; upsampling commutes with it."""
        self.image_bases = self.image_bases * scale
        self.image_mean = self.image_mean * scale + shift


def restore(stored: Mapping[str, Tensor], shape: ImageShape) -> Distilled:
    """Return the distilled pairs that were `stored`, with the stored codes."""
    if "image_bases" not in stored:
        return Pairs(stored["images"], stored["targets"])
    return Bases(
        shape=shape,
        image_bases=stored["image_bases"],
        image_mean=stored["image_mean"],
        image_coefficients=stored["image_coefficients"],
        target_bases=stored["target_bases"],
        target_mean=stored["target_mean"],
        codes=stored["target_coefficients"],
    )


def decode_pairs(stored: Mapping[str, Tensor]) -> TrainingSet:
    """Return stored `images` and their `targets` [m d], these in float32."""
    return TrainingSet(
        images=stored["images"],
        views=("identity",),
        targets=stored["targets"].float().unsqueeze(0),
        objective="mse",
    )
