"""Decoding of distilled images and targets from bases and coefficients."""

import torch

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome

from ._bases import enlarged, new_bases

__all__ = ["basis_decode"]


def basis_decode(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the decoding of all images and targets of `ours`.

    Operations: 2 m u q_x for images of q_x numbers at the bases' resolution, 2 v m q d for targets.
    Bytes: bases, coefficients, images at both resolutions and targets.
    """
    m, u, q, d, side = (6, 5, 4, 8, 8) if small else (250, 200, 200, 512, 32)
    bases = new_bases(compute, m=m, u=u, q=q, d=d, side=side)

    def fast() -> Outcome:
        return bases.images(), bases.targets(bases.codes)

    def plain() -> Outcome:
        full = enlarged(bases.image_bases, side)
        (mean,) = enlarged(bases.image_mean[None], side)
        images = [mean + (c[:, None, None, None] * full).sum(0) for c in bases.image_coefficients]
        targets = [codes @ bases.target_bases + bases.target_mean for codes in bases.codes]
        return torch.stack(images), torch.stack(targets)

    small_numbers, v = 3 * (side // 2) ** 2, len(bases.codes)
    numbers = sum(parameter.numel() for parameter in bases.parameters())
    return Kernel(
        shape=f"{m} images of {side}x{side} from {u} bases, targets of {v} views from {q}",
        fast=fast,
        plain=plain,
        operations={"matrix product fp32": 2 * m * u * small_numbers + 2 * v * m * q * d},
        num_bytes=4 * (numbers + 2 * m * small_numbers + m * 3 * side**2 + v * m * d),
        twin_is_counted=False,
        tolerance=1e-5,
        tried=(
            "One product for all images, upsampled afterwards: upsampling is linear, so the "
            "product runs on a quarter of the pixels."
        ),
    )
