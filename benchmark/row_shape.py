"""Validation of rows: types, ranges, and descriptions of what is expected."""

import json
from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from textwrap import shorten
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

_MOST = 1e99  # largest number, so that sums do not overflow
_ROUNDING = 1e-6  # of means, in per cent
_PROVENANCE = {"commit", "torch", "timm", "finished_at"}
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}

_Content = tuple[Callable[[Any], bool], str]


def checked(content: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row converted to their types: whole numbers are also numbers.

    Args:
        content: the fields as parsed from JSON.
        hints: types by field.

    Raises:
        ValueError: a field is missing, unknown or invalid; the message says what is expected.
    """
    if odd := hints.keys() ^ content.keys():
        raise ValueError(f"missing or unknown fields: {', '.join(sorted(odd))}")
    for place, number in _unusable("", content):
        raise ValueError(
            f"{place} is {shorten(str(number), 60)}, expected a finite number of at most {_MOST:g}"
        )
    for name, hint in hints.items():
        value, types = content[name], _types_of(hint)
        _expect(name, value, _is_one_of(types, value), " or ".join(_WORDS[each] for each in types))
        is_right, words = _content(name)
        _expect(name, value, value is None or is_right(value), words)
    if lacking := _PROVENANCE - content["provenance"].keys():
        raise ValueError(f"provenance lacks {', '.join(sorted(lacking))}")
    value, mean = content["value"], fmean(content["draws"])
    _expect("value", value, abs(value - mean) < _ROUNDING, f"the mean of draws, {mean:.6g}")
    return {name: _as_floats(value, hints[name]) for name, value in content.items()}


def _unusable(place: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield the numbers within a value that are not finite or too large, and their places."""
    if isinstance(value, int | float) and not -_MOST <= value <= _MOST:
        yield place, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _unusable(f"{place}.{name}" if place else name, part)
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from _unusable(f"{place}[{position}]", part)


def _expect(name: str, value: Any, is_right: bool, words: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is {shorten(json.dumps(value), 60)}, expected {words}")


def _content(name: str) -> _Content:
    """Return the condition on a field beyond its type."""
    if name.endswith(("_seconds", "_mib", "_bytes")) or name.startswith("num_"):
        return lambda value: _is_number(value, 0.0), f"from 0 to {_MOST:g}"
    return _CONTENTS.get(name, (lambda value: True, ""))


_COUNT: _Content = (lambda value: value >= 1, "a whole number from 1, or null")
_CONTENTS: Mapping[str, _Content] = {
    "N": _COUNT,
    "labels_per_class": _COUNT,
    "value": (lambda value: _is_number(value, 0.0, 100.0), "per cent from 0 to 100"),
    "draws": (
        lambda values: bool(values) and all(_is_number(value, 0.0, 100.0) for value in values),
        "a list of one or more numbers from 0 to 100",
    ),
    "losses": (
        lambda losses: all(_is_pair(pair, _is_number) for pair in losses.values()),
        "two numbers for each name, the means over the first and the last quarter",
    ),
    "storage": (
        lambda parts: all(_is_pair(pair, _is_amount) for pair in parts.values()),
        "two whole numbers for each component, of numbers and of bytes",
    ),
    "teacher_held_out": (
        lambda found: all(map(_is_number, found.values())),
        "a number for each name",
    ),
    "changes": (
        lambda owners: all(isinstance(fields, dict) for fields in owners.values()),
        "an object of settings for each owner",
    ),
    "provenance": (
        lambda facts: all(isinstance(fact, str) for fact in facts.values()),
        "text for each name",
    ),
}


def _is_number(value: Any, least: float = -_MOST, most: float = _MOST) -> bool:
    return _is_one_of((float,), value) and bool(least <= value <= most)


def _is_amount(value: Any) -> bool:
    return _is_one_of((int,), value) and _is_number(value, 0.0)


def _is_pair(pair: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(is_right, pair))


def _is_one_of(types: tuple[type, ...], value: Any) -> bool:
    """Say whether a value has one of the types: integers are numbers, booleans are not."""
    return type(value) in types or (type(value) is int and float in types)


def _types_of(hint: Any) -> tuple[type, ...]:
    """Return the JSON types of a hint: dict for dict[str, Any], two types for a union."""
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in parts)


def _as_floats(value: Any, hint: Any) -> Any:
    """Return `value` with whole numbers as floats where its type has floats."""
    if hint in (float, float | None) and value is not None:
        return float(value)
    if hint == list[float]:
        return list(map(float, value))
    if get_origin(hint) is dict and (of := get_args(hint)[1]) in (float, list[float]):
        return {name: _as_floats(part, of) for name, part in value.items()}
    return value
