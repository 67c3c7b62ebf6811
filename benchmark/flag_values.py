"""Values of command line flags: text is parsed, or refused in a few words."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmark.memory import GIB
from benchmark.spec import unknown

KINDS = ("methods", "models", "datasets", "teachers", "suites", "kernels")

FORMATS = ("markdown", "html", "csv", "latex")  # of reports

_T = TypeVar("_T")


def _listed(text: str, value: Callable[[str], _T], expected: str) -> tuple[_T, ...]:
    """Parse a comma-separated list of distinct values; `value` raises a ValueError if invalid."""
    parts = [part.strip() for part in text.split(",")]
    try:
        values = tuple(value(part) for part in parts)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}") from None
    if len(set(values)) < len(values):
        twice = next(parts[values.index(value)] for value in values if values.count(value) > 1)
        raise argparse.ArgumentTypeError(f"{text}: {twice} appears twice")
    return values


def _name(part: str) -> str:
    if not part:
        raise ValueError
    return part


def _whole(least: int) -> Callable[[str], int]:
    def value(part: str) -> int:
        number = int(part)
        if number < least:
            raise ValueError
        return number

    return value


def names(text: str) -> tuple[str, ...]:
    """Parse distinct names."""
    return _listed(text, _name, "names, such as a,b")


def names_or_none(text: str) -> tuple[str, ...]:
    """Parse distinct names; `none` means none."""
    return () if text == "none" else _listed(text, _name, "names, such as a,b, or none")


def budgets(text: str) -> tuple[int, ...]:
    """Parse budgets N."""
    return _listed(text, _whole(1), "whole numbers from 1, such as 100,50")


def seeds(text: str) -> tuple[int, ...]:
    """Parse seeds."""
    return _listed(text, _whole(0), "whole numbers from 0, such as 0,1,2")


def label_counts(text: str) -> tuple[int | None, ...]:
    """Parse numbers of labels per class; None means all."""

    def value(part: str) -> int | None:
        return None if part == "all" else _whole(1)(part)

    return _listed(text, value, "all or whole numbers from 1, such as all,10")


def formats(text: str) -> tuple[str, ...]:
    """Parse formats of reports."""

    def value(part: str) -> str:
        if part not in FORMATS:
            raise argparse.ArgumentTypeError(str(unknown("format", part, list(FORMATS))))
        return part

    return _listed(text, value, "names, such as a,b")


def path(text: str) -> Path:
    """Parse a path and expand ~, which shells do not expand after an equals sign."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found nothing")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: there is no such user") from None


def folder(text: str) -> Path:
    """Parse the path of a folder, which need not exist yet."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: a file, expected a folder")
    return found


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    try:
        return _whole(1)(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1") from None


def gib(text: str) -> int:
    """Parse GiB as bytes."""
    try:
        amount = float(text) * GIB
    except ValueError:
        amount = 0.0
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected positive GiB, such as 8 or 0.5")
    return math.ceil(amount)


def kind(text: str) -> str:
    """Parse a kind of plug-ins."""
    if text not in KINDS:
        raise argparse.ArgumentTypeError(str(unknown("kind", text, list(KINDS))))
    return text
