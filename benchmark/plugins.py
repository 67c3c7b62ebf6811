"""A plug-in is a file: ``methods/krr_st.py`` is `krr-st`, and exports one public name.

Kinds are the folders `methods`, `models`, `datasets`, `teachers`, `suites`, `tables`, `figures` and
`kernels` of this package (files whose names begin with ``_`` are shared code, not plug-ins). Other
packages add plug-ins through entry points of the group ``benchmark.<kind>``.
"""

import importlib
import pkgutil
import re
import traceback
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal, get_args

from benchmark import source_code
from benchmark.spec import UsageError, unknown

Kind = Literal[
    "methods", "models", "datasets", "teachers", "suites", "tables", "figures", "kernels"
]


def names(kind: Kind) -> list[str]:
    """Return the names of all plug-ins of a kind, in alphabetical order."""
    return sorted({*_own(kind), *_foreign(kind)})


def packages() -> set[str]:
    """Return the other packages that have plug-ins."""
    entries = (entry for kind in get_args(Kind) for entry in _foreign(kind).values())
    return {re.split("[.:]", entry.value)[0] for entry in entries}


def load(kind: Kind, name: str) -> Any:
    """Return the single public object of a plug-in.

    Raises:
        UsageError: there is none (the message suggests the nearest name and lists the rest), or
            there are two, it cannot be imported, or it does not export exactly one name.
    """
    path, entry = _own(kind).get(name), _foreign(kind).get(name)
    noun = kind.removesuffix("s")
    if path and entry:
        raise UsageError(f"{noun} {name}: there are two, {path} and {entry.value}: rename one")
    if path:
        module = _loaded(path, lambda: importlib.import_module(path))
        exported = getattr(module, "__all__", [])
        if len(exported) != 1:
            raise UsageError(f"{path}: expected one public name in __all__, not {len(exported)}")
        if not hasattr(module, exported[0]):
            raise UsageError(f"{path}: __all__ lists {exported[0]!r}, which is not defined")
        return getattr(module, exported[0])
    if entry:
        made = _loaded(entry.value, entry.load)
        if isinstance(made, ModuleType):
            raise UsageError(f"{noun} {name}: {entry.value} is a module, expected MODULE:NAME")
        return made
    raise unknown(noun, name, names(kind))


def _loaded(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # a plug-in's code can raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{what} cannot be loaded: {type(error).__name__}: {error} "
            f"({place.filename}, line {place.lineno})"
        ) from error


def code_of(kind: Kind, name: str) -> str:
    """Return a hash of the code that a plug-in runs, see `benchmark.source_code`."""
    return source_code.code_of(load(kind, name).__module__)


@cache
def _own(kind: Kind) -> dict[str, str]:
    package = importlib.import_module(f"benchmark.{kind}")
    return {
        module.name.replace("_", "-"): f"{package.__name__}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    }


@cache
def _foreign(kind: Kind) -> dict[str, EntryPoint]:
    """Return the plug-ins of other packages; scanning installed packages takes milliseconds."""
    return {entry.name: entry for entry in entry_points(group=f"benchmark.{kind}")}
