"""Whitening instead of per-channel normalisation, from the stored components."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """An affine map of pixels: each component has its own scale, the rest a common one.

    ``y = rest (x - mean) + sum_r (scales_r - rest) <components_r, x - mean> components_r``

    With all components of the pixels' covariance, and scales ``(variance + eps)^(-1/2)``, this is
    ZCA whitening. The components are orthonormal.
    """

    mean: Float[Tensor, "c h w"]
    components: Float[Tensor, "r c h w"]
    scales: Float[Tensor, " r"]
    rest: Float[Tensor, ""]

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return images in [0, 1] whitened."""
        centred = (images - self.mean).flatten(1)
        components = self.components.flatten(1)
        corrected = (centred @ components.T * (self.scales - self.rest)) @ components
        return (self.rest * centred + corrected).view_as(images)
