"""Distilled pairs as a student's training set, decoded batch by batch.

A budget of N = 5 000 holds 44 000 images; all of them at once, under four views, would take 35
times the memory of what is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.spec import ImageShape

from ._approximation import predict_shift
from ._distilled import Distilled


@dataclass(frozen=True)
class DecodedImages:
    """The distilled images [m c h w], as `spec.Rows`."""

    distilled: Distilled
    image_shape: ImageShape

    @property
    def shape(self) -> torch.Size:
        """Sizes of all images together."""
        image = self.image_shape
        return torch.Size((self.distilled.codes.shape[1], image.c, image.h, image.w))

    def __getitem__(self, index: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Decode some images."""
        return self.distilled.images(index)


@dataclass(frozen=True)
class DecodedTargets:
    """The targets [v m d] of all views, as `spec.Rows`.

    Attributes:
        distilled: with the codes of all views, or of the identity view only.
        networks: weights of the approximation networks for the other views; may be empty.
    """

    distilled: Distilled
    networks: Mapping[str, Tensor]

    @property
    def shape(self) -> torch.Size:
        """Sizes of all targets together."""
        stored, m, _ = self.distilled.codes.shape
        predicted = len(self.networks["approximation_weight_1"]) if self.networks else 0
        d = self.distilled.targets(self.distilled.codes[0, :1]).shape[1]
        return torch.Size((stored + predicted, m, d))

    def __getitem__(
        self, index: tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]
    ) -> Float[Tensor, "b d"]:
        """Decode the targets of some (view, image) pairs."""
        view, image = index
        if not self.networks:
            return self.distilled.targets(self.distilled.codes[view, image])
        plain = self.distilled.codes[0, image]
        shifts = torch.cat([torch.zeros_like(plain)[None], predict_shift(self.networks, plain)])
        row = torch.arange(len(view), device=view.device)
        return self.distilled.targets(plain + shifts[view, row])
