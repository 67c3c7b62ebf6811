"""One outer step of `ours` under all four views, its inner step included."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmark.compute import Compute
from benchmark.kernel import Kernel
from benchmark.methods.ours import Ours

from ._bases import enlarged, new_bases
from ._outer_step import OuterStep

__all__ = ["ours_step"]


def ours_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the step on a batch of `ours`; see `_outer_step` for operations and bytes."""
    m, real_batch, side, d, widths = (
        (4, 6, 16, 64, (8, 8)) if small else (250, 1024, 32, 512, (128, 256, 512))
    )
    u, q = (5, 4) if small else (200, 200)
    views = Ours().views
    start = new_bases(compute, m=m, u=u, q=q, d=d, side=side)

    def decode(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        image_bases, coefficients, target_bases, codes = parameters
        combined = torch.einsum("mu,uchw->mchw", coefficients, enlarged(image_bases, side))
        images = combined + enlarged(start.image_mean[None], side)
        return images, codes @ target_bases + start.target_mean

    step = OuterStep(
        settings=Ours(
            outer_steps=1,
            real_batch=real_batch,
            pool_size=1,
            staggered=False,
            inner_widths=widths,
        ),
        distilled=start,
        decode=decode,
        views=views,
        side=side,
        d=d,
        compute=compute,
    )
    return step.kernel(
        shape=(
            f"{m} distilled and {real_batch} real images of 3x{side}x{side} under {len(views)} "
            f"views, {u} + {q} bases, d = {d}, ConvNet {widths}"
        ),
        tolerance=0.2 if compute.precision == "bf16" else 5e-3,
        tried="The published shape. Like `krr-st-step`; all views in one pass of the network.",
    )
