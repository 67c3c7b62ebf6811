"""Settings: the fields of a frozen dataclass, or the keyword arguments of a factory.

``--set krr-st.outer_steps=1000`` becomes a value of the type that the field declares.
"""

import dataclasses
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.spec import UsageError, unknown

NEUTRAL = {"neutral": True}  # metadata of a field that changes numbers by rounding at most


def neutral(record: Any) -> set[str]:
    """Return the names of a dataclass's settings that change numbers by rounding at most."""
    return {field.name for field in dataclasses.fields(record) if field.metadata.get("neutral")}


def identity(record: Any) -> dict[str, Any]:
    """Return the settings that keys must cover: all but the neutral ones."""
    ignored = neutral(record)
    values = dataclasses.asdict(record)
    return {name: value for name, value in values.items() if name not in ignored}


def expect_dataclass(owner: str, record: Any) -> None:
    """Raise a UsageError unless `record` is a dataclass or an instance of one."""
    if not dataclasses.is_dataclass(record):
        raise UsageError(f"{owner}: expected a dataclass, whose fields are its settings")


def expect_plain(owner: str, record: Any) -> None:
    """Raise a UsageError for a setting that is not a plain value, as keys and rows need."""
    for name, value in identity(record).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{owner}.{name} is {value!r}, expected a finite number, text, true, false, none, "
                "or a tuple of these"
            ) from error


def replace(owner: str, record: Any, changes: Mapping[str, Any]) -> Any:
    """Return a frozen dataclass with `changes`, parsing text to the types of fields.

    Raises:
        UsageError: `owner` has no such field, or the value does not fit its type.
    """
    expect_dataclass(owner, record)
    types = _hints(owner, type(record))
    fields = {field.name: types[field.name] for field in dataclasses.fields(record)}
    parsed = _parsed(owner, fields, changes)
    try:
        return dataclasses.replace(record, **parsed)
    except UsageError as error:  # of the record itself, which does not know its name
        raise UsageError(f"{owner}: {error}") from error


def arguments(owner: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` as keyword arguments of `factory`, parsing text to the annotated types.

    Only keyword-only parameters of `factory` are settings.

    Raises:
        UsageError: as in `replace`.
    """
    types = _hints(owner, factory)
    return _parsed(owner, {name: types[name] for name in defaults(factory)}, given)


def as_tuples(value: Any) -> Any:
    """Return a value that may come from JSON as settings hold it: tuples instead of lists."""
    if isinstance(value, dict):
        return {name: as_tuples(part) for name, part in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def _hints(owner: str, of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError) as error:
        raise UsageError(f"{owner}: the type of a setting cannot be resolved ({error})") from error


def defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the default settings of `factory`, see `arguments`."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _parsed(owner: str, fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in fields:
            raise unknown(f"setting of {owner}", name, list(fields))
    return {
        name: _parse(f"{owner}.{name}", fields[name], value) if isinstance(value, str) else value
        for name, value in given.items()
    }


def _parse(where: str, expected: Any, text: str) -> Any:
    """Parse `text` as type `expected`: a scalar, a Literal, a tuple, or a union of these."""
    kinds = typing.get_args(expected) if _is_union(expected) else (expected,)
    for kind in sorted(kinds, key=lambda kind: kind is not type(None)):  # try None before text
        try:
            return _parse_one(kind, text.strip())
        except ValueError:
            continue
    shown = expected.__name__ if isinstance(expected, type) else str(expected)
    raise UsageError(f"{where}={text}: expected {shown.replace('typing.', '')}")


def _is_union(expected: Any) -> bool:
    return typing.get_origin(expected) in (typing.Union, type(int | str))


def _parse_one(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is tuple:
        return _parse_tuple(typing.get_args(kind), text)
    if typing.get_origin(kind) is typing.Literal:
        return _choose(text, {str(value): value for value in typing.get_args(kind)})
    if kind is type(None):
        return _choose(text.lower(), {"none": None})
    if kind is bool:
        return _choose(text.lower(), {"true": True, "false": False})
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    if kind in (int, float, str):
        return kind(text)
    raise ValueError(text)


def _parse_tuple(kinds: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(parts)
    return tuple(_parse_one(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _choose(text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return choices[text]
