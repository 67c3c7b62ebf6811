"""The command line: arguments to a command, mistakes to one line, and exit codes."""

import codecs
import importlib
import io
import signal
import sys
import threading
from collections.abc import Sequence

from benchmark.allocation import keep_freed_memory
from benchmark.arguments import new_parser
from benchmark.memory import is_out_of_memory
from benchmark.spec import NonFiniteError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if all went well, 1 if some cell failed, 2 for a user's mistake, 130 if interrupted.
    """
    _print_on_any_console()
    if threading.current_thread() is threading.main_thread():  # others may not
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # how batch systems interrupt
    keep_freed_memory()
    try:
        arguments = new_parser().parse_args(argv)
        command = importlib.import_module(f"benchmark.commands.{arguments.command}")
        return int(command.main(arguments))
    except (UsageError, OSError) as error:
        sys.stderr.write(f"benchmark: {' '.join(str(error).split())}\n")
        return 2
    except NonFiniteError as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.stderr.write("benchmark: too little memory for what was asked: smaller would do\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("benchmark: interrupted; the same line goes on from here\n")
        return 130


_PLAIN = {"±": "+/-", "≈": "~", "–": "-"}


def _print_on_any_console() -> None:
    """Print other characters in place of those that a console of another encoding lacks."""
    codecs.register_error("plain", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end
