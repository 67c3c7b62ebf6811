"""Means with their 95 % intervals, paired tests, and correction for multiple testing.

A number with few labels is a mean over subsets of the training split, which are the same for every
method and seed. So samples form a grid of seeds [n] and subsets [m], both random effects: the
subsets of one seed share its distilled set and are not independent experiments, nor are the seeds
of one subset. The variance of the grid's mean is that due to seeds plus that due to subsets::

    (MS_seeds + max(MS_subsets - MS_rest, 0)) / (n m)

with the mean squares of the two-way analysis of variance. Satterthwaite's degrees of freedom
(Biometrics Bulletin 2, 1946) make intervals a little too short, the weighted quantile of Cochran
and Cox (Experimental Designs, 1950) a little too long: ours is half-way between, and covers 94 to
97 % with at least three seeds and ten subsets. Tests use this quantile at their own p: the same
degrees of freedom at every p would make small p-values much too small. Still, with three seeds a
p-value below 0.006 is up to 1.7 times, and one below 0.001 up to 2.5 times as frequent as it should
be. Fewer subsets estimate their variance poorly: with two of them, and most of the variance due to
them, coverage is 90 %. Two seeds with several subsets get no interval: no method keeps its nominal
coverage there. With one subset (all labels) this is exactly Student's t over seeds.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from benchmark.rows import Row

LEVEL = 0.05  # significance level of every test; intervals cover the rest
_ROUNDING = 1e-9  # points, and shares: values this close differ by rounding alone
MIN_SEEDS = 3  # for a test, and for an interval over subsets

_K = TypeVar("_K", bound=Hashable)
Samples = Mapping[int, Float[np.ndarray, " _"]]  # by seed, one value for each subset


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; its standard error is None where there are too few seeds.

    Attributes:
        mean: of all values.
        n: seeds.
        standard_error: of the mean.
        parts: shares of the squared standard error, each with its degrees of freedom.
    """

    mean: float
    n: int
    standard_error: float | None = None
    parts: tuple[tuple[float, float], ...] = ()

    @property
    def half_width(self) -> float | None:
        """Half-width of the 95 % interval."""
        if self.standard_error is None:
            return None
        return self._quantile(LEVEL / 2) * self.standard_error

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the hypothesis that the mean is zero; None if it cannot be tested.

        That takes three seeds, and values that are not all equal (unless all are zero).
        """
        if self.standard_error is None or self.n < MIN_SEEDS:
            return None
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else None
        t = abs(self.mean) / self.standard_error
        degrees = [d for _, d in self.parts]
        least, most = (float(stdtr(d, -t)) for d in (sum(degrees), min(degrees)))
        if len(degrees) == 1 or self._quantile(most) >= t:  # rounding can hide where signs change
            return 2 * most
        if self._quantile(least) <= t:
            return 2 * least
        return float(2 * brentq(lambda tail: self._quantile(tail) - t, least, most))

    def _quantile(self, tail: float) -> float:
        """Return how many standard errors a mean exceeds with probability `tail`."""
        satterthwaite = 1 / sum(share**2 / d for share, d in self.parts)
        cochran = sum(-share * stdtrit(d, tail) for share, d in self.parts)
        return float((-stdtrit(satterthwaite, tail) + cochran) / 2)

    def __format__(self, sign: str) -> str:
        """Return mean and interval; `+` shows the sign of a difference."""
        width = "" if self.half_width is None else f" ± {self.half_width:.2f}"
        return f"{self.mean:{sign}.2f}{width}"


def samples_of(rows: Sequence[Row]) -> Samples:
    """Return the values of rows that differ only in seed, by seed."""
    return {
        row.seed: np.array(row.draws if len(row.draws) > 1 else [row.value], dtype=float)
        for row in sorted(rows, key=lambda row: row.seed)
    }


def less(ours: Samples, theirs: Samples) -> Samples:
    """Return our values minus theirs, on the seeds that both have."""
    return {
        seed: np.subtract(*_alike([ours[seed], theirs[seed]])) for seed in ours if seed in theirs
    }


def mean_of(parts: Sequence[Samples]) -> Samples:
    """Return the mean of all parts, on the seeds that all of them have."""
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)] if parts else []
    return {seed: _alike([part[seed] for part in parts]).mean(0) for seed in seeds}


def summarise(samples: Samples) -> Estimate | None:
    """Return the mean over seeds and subsets with its standard error; None without seeds."""
    return estimate(_alike(list(samples.values()))) if samples else None


def estimate(grid: Float[np.ndarray, "n m"]) -> Estimate:
    """Return the mean of a grid of n seeds and m subsets, with its standard error."""
    n, m = grid.shape
    mean = grid.mean()
    if n == 1 or (m > 1 and n < MIN_SEEDS):
        return Estimate(float(mean), n)
    seeds, subsets = grid.mean(1, keepdims=True), grid.mean(0, keepdims=True)
    of_seeds = m * ((seeds - mean) ** 2).sum() / (n - 1)
    of_subsets = 0.0
    if m > 1:
        rest = ((grid - seeds - subsets + mean) ** 2).sum() / ((n - 1) * (m - 1))
        of_subsets = max(n * ((subsets - mean) ** 2).sum() / (m - 1) - rest, 0.0)
    total = of_seeds + of_subsets
    if total < _ROUNDING**2:
        return Estimate(float(mean), n, 0.0, ((1.0, n - 1.0),))
    shares = ((float(of_seeds / total), n - 1.0), (float(of_subsets / total), m - 1.0))
    parts = tuple((share, degrees) for share, degrees in shares if share > _ROUNDING)
    return Estimate(float(mean), n, float(np.sqrt(total / (n * m))), parts)


def _alike(parts: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "n m"]:
    """Stack values, or their means where the numbers of subsets differ."""
    if len({len(part) for part in parts}) > 1:
        parts = [part.mean(keepdims=True) for part in parts]
    return np.stack(parts)


def holm(probabilities: Mapping[_K, float]) -> dict[_K, float]:
    """Return p-values corrected so that the family-wise error rate is that of a single test.

    Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979); the tests may be
    dependent.
    """
    corrected, worst = dict[_K, float](), 0.0
    for rank, name in enumerate(sorted(probabilities, key=lambda name: probabilities[name])):
        worst = max(worst, min(1.0, (len(probabilities) - rank) * probabilities[name]))
        corrected[name] = worst
    return corrected
