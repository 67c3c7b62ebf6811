"""Settings are the fields of a frozen dataclass or the keyword arguments of a factory.

``--set krr-st.outer_steps=1000`` becomes a value of the type that the field declares.
"""

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.plugins import unknown
from benchmark.spec import UsageError


def replace(owner: str, record: Any, changes: Mapping[str, Any]) -> Any:
    """Return a frozen dataclass with `changes` made, text values parsed to their fields' types.

    Raises:
        UsageError: `owner` has no such field, or the value does not fit its type.
    """
    types = typing.get_type_hints(type(record))
    fields = {field.name: types[field.name] for field in dataclasses.fields(record)}
    return dataclasses.replace(record, **_parsed(owner, fields, changes))


def arguments(owner: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` as keyword arguments of `factory`, text parsed to the annotated types.

    Raises:
        UsageError: as `replace`.
    """
    types = typing.get_type_hints(factory)
    parameters = inspect.signature(factory).parameters.values()
    return _parsed(owner, {p.name: types[p.name] for p in parameters if p.name in types}, given)


def _parsed(owner: str, fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in fields:
            raise unknown(f"setting of {owner}", name, list(fields))
    return {
        name: _parse(f"{owner}.{name}", fields[name], value) if isinstance(value, str) else value
        for name, value in given.items()
    }


def _parse(where: str, expected: Any, text: str) -> Any:
    """Read `text` as an `expected`: a scalar, a Literal, a tuple, or one of a union of these."""
    for kind in typing.get_args(expected) if _is_union(expected) else (expected,):
        try:
            return _parse_one(kind, text)
        except ValueError:
            continue
    shown = (
        expected.__name__ if isinstance(expected, type) else str(expected).replace("typing.", "")
    )
    raise UsageError(f"{where}={text}: expected {shown}")


def _is_union(expected: Any) -> bool:
    return typing.get_origin(expected) in (typing.Union, type(int | str))


def _parse_one(kind: Any, text: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return tuple(
            _parse_one(item, part.strip()) for part in text.strip("()").split(",") if part.strip()
        )
    if kind is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind is int:
        value = (
            ast.literal_eval(text) if text.strip().lstrip("+-").replace("_", "").isdigit() else None
        )
        if not isinstance(value, int):
            raise ValueError(text)
        return value
    if kind is float:
        return float(text)
    if kind is str:
        return text
    raise ValueError(text)
