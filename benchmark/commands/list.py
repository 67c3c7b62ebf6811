"""List what can be named on the command line."""

import argparse
import sys
from typing import Any

from benchmark import artifacts, plugins
from benchmark.grid import Suite
from benchmark.spec import DatasetInfo, UsageError
from benchmark.teacher import shipped_teachers


def main(arguments: argparse.Namespace) -> int:
    """Print one line for each plug-in of a kind."""
    for name in plugins.names(arguments.kind):
        sys.stdout.write(f"{name:<16}  {_summary(arguments.kind, name)}\n")
    if arguments.kind == "teachers":
        for name, file in shipped_teachers().items():
            header = artifacts.read_header(file)
            sys.stdout.write(f"{name}  ships: {header['kind']} of {header['source']}\n")
    return 0


def _summary(kind: plugins.Kind, name: str) -> str:
    """Return a suite's title, or the first line of a module's docstring and a dataset's licence."""
    try:
        plugin: Any = plugins.load(kind, name)
    except UsageError as error:
        return f"({' '.join(str(error).split())})"
    if isinstance(plugin, Suite):
        return plugin.title
    line = (sys.modules[plugin.__module__].__doc__ or "").strip().partition("\n")[0]
    info = getattr(plugin, "info", None)
    return f"{line} Licence: {info.licence}." if isinstance(info, DatasetInfo) else line
