"""Extraction of frozen features from a downstream dataset."""

from benchmark.compute import Compute
from benchmark.kernel import Kernel, Outcome
from benchmark.probing import extract
from benchmark.spec import ImageShape

from ._cost import cost_of
from ._plain_probing import extract_plainly
from ._setting import BareLoop, networks, pixels

__all__ = ["feature_extraction"]


def feature_extraction(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the extraction from part of a dataset: one forward pass of the backbone per image."""
    num, side, widths = (40, 8, (8, 8)) if small else (1024, 32, (128, 256, 512))
    images = pixels(num, side, compute)
    student, twin = networks(compute, side, "convnet", 10, widths=widths)

    def fast() -> Outcome:
        return (extract(student, images, checkpoint=BareLoop()),)

    def plain() -> Outcome:
        return (extract_plainly(twin, images),)

    cost = cost_of(student, ImageShape(3, side, side))
    return Kernel(
        shape=f"{num} images of 3x{side}x{side}, ConvNet {widths}",
        fast=fast,
        plain=plain,
        operations=cost.times(backbone=num * cost.forward),
        num_bytes=num * (cost.num_bytes + 4 * student.num_features),
        tolerance=0.015 if compute.precision == "bf16" else 1e-4,
        tried=(
            "uint8 batches are normalised on the device instead of image by image in a "
            "DataLoader; bf16 and channels-last where that is faster. Batch norms folded into "
            "convolutions: a twentieth less time here, a tenth for a quarter-width ResNet-18, "
            "a third for a quarter-width MobileNet. On a CPU 256 images at a time: 4 096 at once "
            "took a fifth longer (AVX2), as maps of 2 GiB are no longer kept when they are freed, "
            "and keeping these, too, took three quarters more memory for a whole step of `ours`. "
            "Winograd's convolutions as batched products (AVX2, 16x16, forward alone, errors of "
            "3e-6) took as long as oneDNN's with 2x2 tiles, and with 4x4 tiles 0.7 to 1.1 times as "
            "long for 128 channels and 0.55 for 256: too little for derivatives of their own."
        ),
    )
