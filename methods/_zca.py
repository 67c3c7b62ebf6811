"""ZCA whitening: decorrelate pixels while staying as close to the image as possible.

With the mean ``mu`` and the covariance ``V diag(s) V'`` of flattened images (divided by n - 1), ::

    whiten(x)   = V diag(s + eps)^(-1/2) V' (x - mu)
    unwhiten(y) = mu + V diag(s + eps)^(1/2) V' y
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from benchmark.spec import ImageShape, Loop
from benchmark.whitening import Whitening

from ._checked_file import fingerprint, kept

_KEPT = ("mean", "components", "variances")
_CHUNK = 4096  # images at a time in double precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Zca:
    """A fitted whitening of flattened images of x numbers each.

    Attributes:
        mean: mu.
        components: V, one component in each column.
        variances: s, that of each component.
        eps: added to every variance.
    """

    mean: Float64[Tensor, " x"]
    components: Float64[Tensor, "x x"]
    variances: Float64[Tensor, " x"]
    eps: float

    @classmethod
    def fit(
        cls, images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"], *, eps: float
    ) -> "Zca":
        """Fit to images (uint8, or in [0, 1]), in double precision."""
        n = len(images)
        mean = torch.stack([_flat(chunk).sum(0) for chunk in _chunks(images)]).sum(0) / n
        covariance = mean.new_zeros(len(mean), len(mean))
        for chunk in _chunks(images):
            centred = _flat(chunk) - mean
            covariance.addmm_(centred.T, centred, alpha=1 / (n - 1))
        variances, components = torch.linalg.eigh(covariance)
        return cls(
            mean=mean,
            components=components.contiguous(),
            variances=variances.clamp(min=0),
            eps=eps,
        )

    @classmethod
    def kept(
        cls,
        images: UInt8[Tensor, "n c h w"],
        *,
        eps: float,
        folder: Path | None,
        checkpoint: Loop,
    ) -> "Zca":
        """Fit to images, or read an earlier fit from `folder`, charging its time."""
        if folder is None:
            return cls.fit(images, eps=eps)
        file = folder / f"zca-{fingerprint(images)[:16]}.safetensors"
        parts = kept(file, lambda: cls.fit(images, eps=eps)._parts, checkpoint)
        return cls(**{name: part.to(images.device) for name, part in parts.items()}, eps=eps)

    @property
    def _parts(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _KEPT}

    @property
    def num_strong(self) -> int:
        """Number of components with more variance than eps, which dominate the whitening."""
        return int((self.variances > self.eps).sum())

    def leading(self, num: int, shape: ImageShape) -> dict[str, Tensor]:
        """Return the `num` components of largest variance, for storage (see `Whitening`).

        The common scale of all others, a, is the one that changes whitened images least: it
        minimises ``sum_j s_j (a - (s_j + eps)^(-1/2))^2`` over them.
        """
        order = self.variances.argsort(descending=True)
        scales = (self.variances[order] + self.eps) ** -0.5
        weights = self.variances[order[num:]]
        rest = (weights * scales[num:]).sum() / weights.sum().clamp_min(1e-30)
        components = self.components.T[order[:num]]
        size = (shape.c, shape.h, shape.w)
        return {
            "whitening_mean": self.mean.float().view(size),
            "whitening_components": components.float().reshape(num, *size),
            "whitening_scales": torch.cat([scales[:num], rest[None]]).float(),
        }

    def whiten(
        self, images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Return whitened images, from uint8 or [0, 1]."""
        return _by_chunk(images, lambda x: self._scaled(x - self.mean, -0.5))

    def unwhiten(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return pixels of whitened images, not clipped to [0, 1]."""
        return _by_chunk(images, lambda y: self._scaled(y, 0.5) + self.mean)

    def _scaled(self, x: Float64[Tensor, "b x"], power: float) -> Float64[Tensor, "b x"]:
        """Multiply by ``(V diag(s) V' + eps)^power``."""
        return (x @ self.components * (self.variances + self.eps) ** power) @ self.components.T


def affordable(numbers: int, shape: ImageShape) -> int:
    """Return how many components fit in `numbers` besides the mean and the common scale.

    It is negative if these two do not fit.
    """
    return min((numbers - shape.numel - 1) // (shape.numel + 1), shape.numel)


def stored_whitening(stored: Mapping[str, Tensor]) -> Whitening | None:
    """Return the whitening among stored tensors, see `Zca.leading`, or None."""
    if "whitening_mean" not in stored:
        return None
    scales = stored["whitening_scales"]
    return Whitening(
        mean=stored["whitening_mean"],
        components=stored["whitening_components"],
        scales=scales[:-1],
        rest=scales[-1],
    )


def _flat(images: Tensor) -> Float64[Tensor, "b x"]:
    scale = 1.0 if images.is_floating_point() else 255.0
    return images.flatten(1).to(torch.float64) / scale


def _by_chunk(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    dtype = images.dtype if images.is_floating_point() else torch.get_default_dtype()
    made = torch.empty(images.shape, dtype=dtype, device=images.device)
    for part, chunk in zip(_chunks(made), _chunks(images), strict=True):
        part.copy_(function(_flat(chunk)).view(chunk.shape))
    return made


def _chunks(images: Tensor) -> tuple[Tensor, ...]:
    return torch.split(images, _CHUNK)
