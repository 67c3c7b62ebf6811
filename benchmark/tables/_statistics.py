"""Means over seeds with their 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t


@dataclass(frozen=True)
class Summary:
    """A mean over `n` seeds and the half-width of its 95 % interval (None for one seed)."""

    mean: float
    half_width: float | None
    n: int

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ± {self.half_width:.2f}"


def summarise(values: Sequence[float]) -> Summary:
    """Return the mean of values that are independent and roughly normal, with Student's interval.

    The half-width is t(0.975, n - 1) s / sqrt(n), s being the sample standard deviation.
    """
    n = len(values)
    if n == 1:
        return Summary(values[0], None, 1)
    return Summary(fmean(values), float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n), n)
