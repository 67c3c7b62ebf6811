"""KRR-ST: self-supervised dataset distillation by kernel ridge regression.

Lee, Lee, Hwang: *Self-Supervised Dataset Distillation for Transfer Learning*, ICLR 2024 (arXiv
2310.06511). The baseline of the published tables: 47.00 % linear probe accuracy on CIFAR-100 at N =
100 with a ConvNet (Yu et al. 2025).

Distilled images X_s (`images`) and representations Y_s (`targets`) minimise ::

    mean || phi(X) K(X_s)^-1 Y_s - g(X) ||^2

over real images X, where g is the teacher, phi the features of an inner model drawn from a pool
(`_pool`) that is simultaneously trained on (X_s, Y_s), and K the ridge-regularised kernel
(`_ridge`).

Differences from the released code (db-Lee/selfsup_dd), with the field that restores its behaviour,
if any:

* A replaced model starts at age 0. There its slot keeps the old age, so that after some 10 000 of
  160 000 steps the whole pool stays untrained (`restart=False`).
* Real batches are sampled with replacement (there, from shuffled epochs).
* Real batches are not augmented, as in that code's first version; later it crops and flips them
  (`augment_real=True`), which costs a teacher pass per step.
* Distilled images are normalised like real ones. There they start as pixels in [0, 1] and are fed
  to networks unnormalised, while real images are normalised (`raw_distilled=True`).
* Representations of real images are computed once, and the linear system is solved by Cholesky.
* With more than `distilled_batch` pairs, each step samples that many. The released code has a
  single size, N = 1 000.
* Students train on batches of equal size (there, a short one comes last: 232 of 256 at N = 1 000).
* Inner models run in the run's precision (there, float32).
* The teacher pads its stem by 1, not 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.spec import ImageShape, Limit, Loop, Outline, Problem, Supervision, TrainingSet
from benchmark.workload import Forecast

from ._distilled import Pairs, decode_pairs
from ._outer_forecast import bilevel_forecast
from ._outer_loop import Bilevel, BilevelSettings
from ._subset import draw_images, expect_enough

__all__ = ["KrrSt"]


@dataclass(frozen=True, kw_only=True)
class KrrSt(BilevelSettings):
    """Kernel ridge regression on self-supervised targets."""

    supervision: ClassVar[Supervision] = "none"
    limit: ClassVar[Limit] = "numbers"

    outer_steps: int = 160_000  # released train.py
    outer_lr: float = 1e-4  # README of the released code, CIFAR-100

    def check(self, outline: Outline) -> None:
        """Also refuse a budget of more images than there are."""
        super().check(outline)
        expect_enough(outline.num_images, outline.N)

    def distill(
        self, problem: Problem, *, generator: torch.Generator, checkpoint: Loop
    ) -> dict[str, Tensor]:
        """Return N images and N representations."""
        chosen = draw_images(problem, problem.budget.N, generator)
        pairs = Pairs(
            pixels=problem.images[chosen] / 255,
            codes=problem.representations("identity")[chosen].unsqueeze(0).clone(),
        )
        bilevel = Bilevel(self, pairs, ("identity",), problem=problem, generator=generator)
        bilevel.run(checkpoint)
        return {"images": pairs.pixels, "targets": pairs.codes[0]}

    def forecast(self, problem: Problem) -> Forecast:
        """See `spec.Method`."""
        return bilevel_forecast(self, problem, views=1, m=problem.budget.N)

    def decode(self, stored: Mapping[str, Tensor], shape: ImageShape) -> TrainingSet:
        """Return the pairs as they are."""
        return decode_pairs(stored)
