"""Counts of the work of probes on frozen features."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from benchmark.captured import launches
from benchmark.memory import num_at_once
from benchmark.network import Precision
from benchmark.probes.fair import ROUGH, FairProbe, bytes_of_draw
from benchmark.probes.linear import Probe
from benchmark.probes.paper import PaperProbe
from benchmark.probing import NUM_DRAWS, HeadProbe
from benchmark.workload import Work

# Solver steps of the fair probe depend on the data. Counted on pretrained students of
# `cifar100-small` (ConvNet, ResNet18, ViT; all 50 000 images), from the previous strength to the
# first one with a tolerance of 1e-3, 1e-4 and 1e-5: 8 to 27, 24 to 90 and 60 to 134 on 100 classes,
# 8 to 24, 12 to 18 and 21 to 27 on ten; further strengths with the same tolerance take 1 to 18,
# except for the one that is given up, which takes about as many as the one before.
_PER_DIGIT, _GROWTH = 10, 0.2  # of log10(k) classes, see `_steps_to`
_PER_STRENGTH = 5
# The strength chosen most often on all labels (`cifar100-small`, `quick`), and the next weaker one,
# which is given up on the way.
_BEST, _WEAKEST = 1e-3, 1e-4
# Ten labels per class (ConvNet and ViT, VGG11 on ten classes): with a tolerance of 1e-3, 38 to 63
# steps, and 7 to 18 for the final fit; with 1e-4, 55 to 87 and 10 to 31; with 1e-5, 81 to 131 and
# 12 to 36. (ViT on 120 classes, where the strongest penalty is best, took 7 to 12, and 2.)
_FEW_TOLERANCE, _FEW_CHOOSING, _FEW_FINAL = 1e-4, 65, 20
_FEW_POWER = 0.15  # exponent: a looser tolerance shortens them
_SEARCH_NUMBERS = 30  # read and written per logit in a step: two or three softmaxes
_SOLVER_OPERATORS = 120  # in a step: both L-BFGS loops and the line search

_DESCENT_OPERATORS = 13  # in a step of the paper probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The sizes of what is probed.

    Attributes:
        n: images of the training split, `num_test` those of the test split.
        p: features.
        k: classes.
        labels_per_class: that the probe sees; None means all.
    """

    n: int
    num_test: int
    p: int
    k: int
    labels_per_class: int | None

    @property
    def subsets(self) -> tuple[int, int]:
        """Number of subsets, and of images in each."""
        if self.labels_per_class is None:
            return 1, self.n
        return NUM_DRAWS, self.labels_per_class * self.k


class Steps(NamedTuple):
    """Steps of the fair probe's solver, and how many of them run in bf16 where it is used."""

    all: float
    in_bf16: float


def assumed_steps(precision: Precision) -> str:
    """Return in words how many steps the fair probe is assumed to take."""
    to = {
        k: " and ".join(f"{_steps_to(tolerance, k).all:.0f}" for tolerance in (1e-3, 1e-5))
        for k in (100, 10)
    }
    how = f"in bf16 down to {ROUGH:g}" if precision == "bf16" else "all in fp32"
    return (
        f"The solver of the fair probe is assumed to need {to[100]} steps to reach tolerances of "
        f"0.001 and 1e-05 on 100 classes ({to[10]} on ten), {how}, and on few labels "
        f"{_FEW_CHOOSING} to choose a strength and {_FEW_FINAL} for the final fit at the default "
        "tolerance; the actual numbers depend on the data."
    )


def probe_work(
    kind: Probe | HeadProbe, sizes: Probed, *, precision: Precision = "fp32"
) -> tuple[Work, ...]:
    """Count fitting a probe and predicting the test split.

    Args:
        kind: of probe.
        sizes: of what is probed.
        precision: of networks, as in `Probe.fit`.
    """
    b, _ = sizes.subsets
    predicted = 2 * b * sizes.num_test * sizes.p * sizes.k
    if isinstance(kind, HeadProbe):
        return (Work(products=predicted),)
    if isinstance(kind, PaperProbe):
        return _descent(kind, sizes, predicted)
    assert isinstance(kind, FairProbe)
    return (_regression(kind, sizes, predicted, precision),)


def probe_bytes(kind: Probe | HeadProbe, sizes: Probed, *, max_memory: int | None) -> int:
    """Return the bytes of the features of both splits, and of the draws that are fitted at once."""
    (b, q), p, k = sizes.subsets, sizes.p, sizes.k
    each = 0
    if isinstance(kind, PaperProbe):
        each = kind.bytes_of_subset(q, p, k)
    elif isinstance(kind, FairProbe):
        each = _turns(kind, sizes) * bytes_of_draw(q, p, k)
    at_once = num_at_once(b, each=max(1, each), max_memory=max_memory)
    return 4 * (sizes.n + sizes.num_test) * p + at_once * each


def solver_steps(kind: FairProbe, sizes: Probed) -> tuple[Steps, Steps]:
    """Return the assumed steps of choosing a strength, and of the final fit."""
    if sizes.labels_per_class is not None:
        shorter = (_FEW_TOLERANCE / kind.tolerance) ** _FEW_POWER
        choosing, final = _FEW_CHOOSING * shorter, _FEW_FINAL * shorter
        return Steps(choosing, choosing), Steps(final, final)
    tried = _tried(kind)
    best = min((strength for strength in tried if strength >= _BEST), default=max(tried))
    solved = {kind.looks_at(strength)[-1] for strength in tried if strength >= best}
    given_up = [kind.looks_at(strength)[0] for strength in tried if strength < best]
    each = [_steps_to(tolerance, sizes.k) for tolerance in (*solved, *given_up)]
    choosing = (_PER_STRENGTH * len(tried) + sum(steps) for steps in zip(*each, strict=True))
    return Steps(*choosing), _steps_to(kind.tolerance_at(best), sizes.k)


def _tried(kind: FairProbe) -> list[float]:
    """Return the strengths that are assumed to be tried, at least one."""
    least = min(_WEAKEST, max(kind.strengths))
    return [strength for strength in kind.strengths if strength >= least]


def _steps_to(tolerance: float, k: int) -> Steps:
    """Return the steps to a tolerance with k classes, starting from a looser one."""
    digits = math.log10(k)
    all_, rough = (
        _PER_DIGIT * digits * (1e-3 / reached) ** (_GROWTH * digits)
        for reached in (tolerance, max(tolerance, ROUGH))
    )
    return Steps(all_, rough)


def _descent(kind: PaperProbe, sizes: Probed, predicted: int | float) -> tuple[Work, Work]:
    """Count SGD: 4 b k w operations per image of a step, for b classifiers on w features.

    With fewer images than features, w is the number of coordinates in their span, which takes a QR
    decomposition of 4 p q q operations. Every pass through a subset is shuffled.
    """
    (b, q), k = sizes.subsets, sizes.k
    batch, w = min(kind.batch, q), min(sizes.p, q)
    span = b * (4 * sizes.p * q * q + 4 * k * sizes.p * q) if sizes.p > q else 0
    steps = Work(
        products=kind.steps * b * 4 * batch * k * w,
        shape=(k, batch, w),
        num_bytes=4 * kind.steps * b * (4 * batch * w + 6 * k * w + 6 * batch * k),
        operators=kind.steps * _DESCENT_OPERATORS,
        captured=True,
        launches=kind.steps * launches(num_inputs=2, num_outputs=0),
    )
    shuffles = b * math.ceil(kind.steps * batch / q)
    return steps, Work(products=span + predicted, shape=steps.shape, operators=shuffles)


def _regression(
    kind: FairProbe, sizes: Probed, predicted: int | float, precision: Precision
) -> Work:
    """Count L-BFGS: 4 q k w operations per step, and 4 k w w for the preconditioner.

    The former are in bf16 where it is used. Each strength takes a factorisation and an inverse,
    w^3. With fewer images than features, everything is in double precision, which counts twice, in
    coordinates of the images' span.
    """
    (b, q), k = sizes.subsets, sizes.k
    w, double = min(sizes.p, q), 1 + (sizes.p > q)
    turns = _turns(kind, sizes)
    choosing, final = solver_steps(kind, sizes)
    steps = b * (turns * choosing.all + final.all)
    rough: int | float = 0
    if precision == "bf16" and sizes.p <= q:
        rough = b * (turns * choosing.in_bf16 + final.in_bf16)
    gradient, preconditioner = 4 * q * k * w, 4 * k * w * w
    once = b * (2 * q * w * w + (len(_tried(kind)) * turns + 1) * w**3)
    span = 4 * b * sizes.p * q * q if sizes.p > q else 0
    all_products = double * (steps * (gradient + preconditioner) + once + span) + predicted
    return Work(
        products=all_products - rough * gradient,
        bf16_products=rough * gradient,
        shape=(k, q, w),
        num_bytes=double * steps * 4 * (2 * q * w + _SEARCH_NUMBERS * q * k + 50 * k * w)
        - rough * 2 * (2 * q * w),
        operators=(choosing.all + final.all) * _SOLVER_OPERATORS,
    )


def _turns(kind: FairProbe, sizes: Probed) -> int:
    """Return how many tenths of each subset are held out in turn, if classes are equally large."""
    (b, q), k = sizes.subsets, sizes.k
    share = max(1, q // k // 10)
    return kind.num_turns(b * k * share, num_tenths=min(10, q // k // share))
