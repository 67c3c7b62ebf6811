"""Validation of settings, with one-line error messages.

A setting may be a number, a non-empty tuple of numbers, or None, which is always valid. Values that
are not finite never are.
"""

import math
from collections.abc import Callable
from typing import Any

from benchmark.spec import UsageError


def expect_counts(settings: Any, *names: str) -> None:
    """Raise a UsageError unless each of these settings is 1 or more."""
    _expect(settings, names, lambda value: value >= 1, "1 or more")


def expect_positive(settings: Any, *names: str) -> None:
    """Raise a UsageError unless each of these settings is above 0."""
    _expect(settings, names, lambda value: value > 0, "a number above 0")


def expect_not_negative(settings: Any, *names: str) -> None:
    """Raise a UsageError unless each of these settings is 0 or more."""
    _expect(settings, names, lambda value: value >= 0, "0 or more")


def expect_momenta(settings: Any, *names: str) -> None:
    """Raise a UsageError unless each of these settings is at least 0 and below 1."""
    _expect(settings, names, lambda value: 0 <= value < 1, "0 to below 1")


def _expect(
    settings: Any, names: tuple[str, ...], fits: Callable[[float], bool], wanted: str
) -> None:
    for name in names:
        value = getattr(settings, name)
        values = value if isinstance(value, tuple) else (value,)
        right = (one is None or (math.isfinite(one) and fits(one)) for one in values)
        if not values or not all(right):
            shown = ",".join(map(str, values)) or "()"
            raise UsageError(f"{name}={shown}: expected {wanted}")
