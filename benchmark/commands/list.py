"""List what can be named on the command line."""

import argparse
import sys
from typing import Any

from benchmark import plugins
from benchmark.plan import Suite


def main(arguments: argparse.Namespace) -> int:
    """Print one line for each plug-in of a kind."""
    for name in plugins.names(arguments.kind):
        sys.stdout.write(f"{name:<16}  {_summary(arguments.kind, name)}\n")
    return 0


def _summary(kind: plugins.Kind, name: str) -> str:
    """Return a title that the plug-in has, else the first line of its module."""
    try:
        plugin: Any = plugins.load(kind, name)
    except Exception as error:  # whatever another package's code does
        reason = " ".join(str(error).split())
        return f"(cannot be loaded: {type(error).__name__}: {reason})"
    if isinstance(plugin, Suite):
        return plugin.title
    return (sys.modules[plugin.__module__].__doc__ or "").strip().partition("\n")[0]
