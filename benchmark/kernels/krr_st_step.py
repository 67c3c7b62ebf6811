"""One outer step of `krr-st`, its inner step included."""

from collections.abc import Sequence

from torch import Tensor

from benchmark.compute import Compute
from benchmark.kernel import Kernel
from benchmark.methods._distilled import Pairs
from benchmark.methods.krr_st import KrrSt

from ._outer_step import OuterStep
from ._setting import normal

__all__ = ["krr_st_step"]


def krr_st_step(compute: Compute, *, small: bool = False) -> Kernel:
    """Return the step with N distilled pairs; see `_outer_step` for operations and bytes."""
    N, real_batch, side, d, widths = (
        (6, 16, 16, 64, (8, 16)) if small else (100, 1024, 32, 512, (128, 256, 512))
    )

    start = Pairs(
        pixels=0.5 + 0.2 * normal("pixels", N, 3, side, side, compute=compute),
        codes=normal("codes", 1, N, d, compute=compute),
    )
    step = OuterStep(
        settings=KrrSt(
            outer_steps=1,
            real_batch=real_batch,
            pool_size=1,
            staggered=False,
            inner_widths=widths,
        ),
        distilled=start,
        decode=_as_they_are,
        views=("identity",),
        side=side,
        d=d,
        compute=compute,
    )
    return step.kernel(
        shape=f"N = {N}, {real_batch} real images of 3x{side}x{side}, d = {d}, ConvNet {widths}",
        tolerance=0.15 if compute.precision == "bf16" else 5e-3,
        tried=(
            "Representations of real images are computed once instead of by a teacher pass in "
            "every step, which is three quarters of the plain step's arithmetic. Convolutions in "
            "bf16 and channels-last where that is faster, with batch norms folded into them, which "
            "takes 4 % off; Cholesky instead of LU (see `ridge-solve`). The twin has 4 times the "
            "operations (1.9 T, in fp32). It also asks the system for fresh memory all the time: "
            "in a process that keeps what it freed it took 9.2 s instead of 13.8 in one "
            "measurement on two threads of an EPYC. Where bf16 has dedicated units (AMX), memory "
            "sets the pace of the fast step. Smaller batches of real images, whose feature maps "
            "stay in the cache, are slower."
        ),
    )


def _as_they_are(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    pixels, codes = parameters
    return pixels, codes
