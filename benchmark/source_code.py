"""The code that a number depends on: a module, and its imports of our own, transitively."""

import ast
import hashlib
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

# They store, display or validate, and change numbers by rounding at most.
_MOVES_NO_NUMBER = {
    f"benchmark.{name}"
    for name in (
        "allocation",
        "artifacts",
        "files",
        "images",  # their fingerprint is in every key
        "loop",
        "memory",
        "plugins",
        "progress",
        "provenance",
        "ranges",
    )
}


def remember(packages: Collection[str]) -> None:
    """Keep the code of all loaded modules of some packages, before their files can change."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages and (file := getattr(module, "__file__", None)):
            _content(Path(file))


@cache
def code_of(module: str) -> str:
    """Return a hash of a module's code, and of its imports from its own package and from this one.

    Comments, docstrings and formatting do not count, nor do the messages of errors, nor code that
    only forecasts (`spec.Method`): functions called `forecast`, and modules called
    ``_..._forecast``.
    """
    packages = {module.partition(".")[0], "benchmark"}
    found: dict[str, str] = {}
    wanted = [module]
    while wanted:
        name = wanted.pop()
        if name in found or name in _MOVES_NO_NUMBER or _is_forecast(name):
            continue
        if name.partition(".")[0] in packages and (file := _file_of(name)) is not None:
            found[name], imported = _read(file, name)
            wanted += imported
    return hashlib.sha256("\n".join(sorted(found.values())).encode()).hexdigest()[:20]


def _file_of(name: str) -> Path | None:
    """Return the file of a module; None for anything else, such as an imported class."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


@cache
def _content(file: Path) -> bytes:
    return file.read_bytes()


@cache
def _read(file: Path, name: str) -> tuple[str, list[str]]:
    """Return the relevant code, and the names that it imports, some of which are not modules."""
    if file.suffix != ".py":  # compiled
        return hashlib.sha256(_content(file)).hexdigest(), []
    tree = ast.parse(_content(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
            node.body = [part for part in node.body if not _forecasts(part)]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    return _text(tree), list(_imported(tree, package))


def _text(part: object) -> str:
    """Return a syntax tree as text that is the same in every version of Python."""
    if isinstance(part, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(part) if value not in (None, [])}
        return f"{type(part).__name__}({', '.join(f'{n}={_text(v)}' for n, v in fields.items())})"
    return f"[{', '.join(map(_text, part))}]" if isinstance(part, list) else repr(part)


def _forecasts(part: ast.stmt) -> bool:
    if isinstance(part, ast.ImportFrom):
        return _is_forecast(part.module or "")
    return isinstance(part, ast.FunctionDef) and part.name == "forecast"


def _is_forecast(module: str) -> bool:
    return module == "benchmark.workload" or module.endswith("_forecast")


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
