"""What the probes of frozen features take, counted."""

import math
from dataclasses import dataclass

from benchmark.memory import num_at_once
from benchmark.network import Precision
from benchmark.probes.fair import FairProbe, bytes_of_draw
from benchmark.probes.linear import Probe
from benchmark.probes.paper import PaperProbe
from benchmark.probing import NUM_DRAWS, HeadProbe
from benchmark.workload import Work

# Solver steps of the fair probe depend on the data. Counted on untrained networks, with a tolerance
# of 1e-4: choosing a strength took 91 and 167 on 10 000 images of CIFAR-100 (ConvNet, ResNet-18),
# 119 on ten labels a class of Fashion-MNIST, the answer 36, 64 and 28; with 1e-3, 11 to 41 and 7 to
# 70. Where ten classes are tried down to the weakest strength, either can be 400.
_TOLERANCE = 1e-4
_CHOOSING_STEPS = 95
_FINAL_STEPS = 40
_CHOOSING_POWER, _FINAL_POWER = 0.5, 0.2  # of how a looser tolerance shortens them
_TRIED = 5  # strengths
# Where bf16 leads, fp32 ends. Counted on 10 000 images of CIFAR-100 and untrained networks (ConvNet
# of 32, 64 and 128 channels, ResNet-18): 95 of 95 and 139 of 147 steps of five strengths were in
# bf16, 30 of 40 and 40 of 45 of the answer; each solve begins with a look in either. Where a sixth
# strength, 1e-4, was tried, most steps of that were in fp32.
_LED_CHOOSING, _LED_FINAL = 0.95, 0.8
_SEARCH_NUMBERS = 30  # read and written in a step for each logit: two or three softmaxes
_SOLVER_OPERATORS = 120  # in a step: both loops over the pairs of L-BFGS, and the search

_DESCENT_OPERATORS = 13  # in a step of the paper probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The sizes of what is probed.

    Attributes:
        n: images of the training split, `num_test` those of the test split.
        p: features.
        k: classes.
        labels_per_class: that the probe sees; None: all.
    """

    n: int
    num_test: int
    p: int
    k: int
    labels_per_class: int | None

    @property
    def subsets(self) -> tuple[int, int]:
        """How many subsets there are, and how many images each has."""
        if self.labels_per_class is None:
            return 1, self.n
        return NUM_DRAWS, self.labels_per_class * self.k


def assumed_steps(precision: Precision) -> str:
    """Return in words what the steps of the fair probe are taken to be."""
    how = "all in fp32"
    if precision == "bf16":
        how = f"of these {_LED_CHOOSING:.0%} and {_LED_FINAL:.0%} in bf16, the rest in fp32"
    return (
        f"The fair probe is taken to need {_CHOOSING_STEPS} solver steps to choose a strength and "
        f"{_FINAL_STEPS} for the answer at its default tolerance, {how}: that depends on the data."
    )


def probe_work(
    kind: Probe | HeadProbe, sizes: Probed, *, precision: Precision = "fp32"
) -> Work | None:
    """Count fitting a probe and predicting the test split; None for a probe that is not known.

    Args:
        kind: of probe.
        sizes: of what is probed.
        precision: of networks, as in `Probe.fit`.
    """
    b, _ = sizes.subsets
    predicted = 2 * b * sizes.num_test * sizes.p * sizes.k
    if isinstance(kind, HeadProbe):
        return Work(products=predicted)
    if isinstance(kind, PaperProbe):
        return _descent(kind, sizes, predicted)
    if isinstance(kind, FairProbe):
        return _regression(kind, sizes, predicted, precision)
    return None


def probe_bytes(kind: Probe | HeadProbe, sizes: Probed, *, max_memory: int | None) -> int:
    """Return what the features of both splits take, and as many draws as are solved at once."""
    (b, q), p, k = sizes.subsets, sizes.p, sizes.k
    each = 0
    if isinstance(kind, PaperProbe):
        each = kind.bytes_of_subset(q, p, k)
    elif isinstance(kind, FairProbe):
        each = _turns(kind, sizes) * bytes_of_draw(q, p, k)
    at_once = num_at_once(b, each=max(1, each), max_memory=max_memory)
    return 4 * (sizes.n + sizes.num_test) * p + at_once * each


def solver_steps(kind: FairProbe) -> tuple[float, float]:
    """Return the assumed steps of choosing a strength, and of the answer."""
    looser = _TOLERANCE / kind.tolerance
    return _CHOOSING_STEPS * looser**_CHOOSING_POWER, _FINAL_STEPS * looser**_FINAL_POWER


def _descent(kind: PaperProbe, sizes: Probed, predicted: int | float) -> Work:
    """Count SGD: 4 b k w operations for each image of a step, b classifiers on w features.

    Where images are fewer than features, w are the coordinates in their span, which takes a QR
    decomposition, 4 p q q operations. Every pass through a subset is shuffled.
    """
    (b, q), k = sizes.subsets, sizes.k
    batch, w = min(kind.batch, q), min(sizes.p, q)
    span = b * (4 * sizes.p * q * q + 4 * k * sizes.p * q) if sizes.p > q else 0
    return Work(
        products=kind.steps * b * 4 * batch * k * w + span + predicted,
        shape=(k, batch, w),
        num_bytes=4 * kind.steps * b * (4 * batch * w + 6 * k * w + 6 * batch * k),
        operators=kind.steps * _DESCENT_OPERATORS + b * math.ceil(kind.steps * batch / q),
    )


def _regression(
    kind: FairProbe, sizes: Probed, predicted: int | float, precision: Precision
) -> Work:
    """Count L-BFGS: 4 q k w operations in a step, and 4 k w w for the preconditioner.

    The former are in bf16 where that leads. Each strength takes a factorisation and an inverse,
    w^3. Where images are fewer than features, everything is in double precision, which counts
    twice, in the coordinates of the images' span.
    """
    (b, q), k = sizes.subsets, sizes.k
    w, double = min(sizes.p, q), 1 + (sizes.p > q)
    turns = _turns(kind, sizes)
    tried = min(_TRIED, len(kind.strengths))
    choosing, final = solver_steps(kind)
    steps = b * (turns * choosing + final)
    led: int | float = 0
    if precision == "bf16" and sizes.p <= q:
        led = b * (turns * choosing * _LED_CHOOSING + final * _LED_FINAL)
    seen, guided = 4 * q * k * w, 4 * k * w * w
    once = b * (2 * q * w * w + (tried * turns + 1) * w**3)
    span = 4 * b * sizes.p * q * q if sizes.p > q else 0
    return Work(
        products=double * (steps * (seen + guided) + once + span) - led * seen + predicted,
        bf16_products=led * seen,
        shape=(k, q, w),
        num_bytes=double * steps * 4 * (2 * q * w + _SEARCH_NUMBERS * q * k + 50 * k * w)
        - led * 2 * (2 * q * w),
        operators=(choosing + final) * _SOLVER_OPERATORS,
    )


def _turns(kind: FairProbe, sizes: Probed) -> int:
    """Return how many tenths of each subset are held out in turn."""
    (b, q), k = sizes.subsets, sizes.k
    return min(10, math.ceil(kind.min_held_out / (b * k * max(1, q // k // 10))))
