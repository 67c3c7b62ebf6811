"""The command line: runs commands, turns errors into one line, and sets exit codes."""

import codecs
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence

from benchmark.allocation import keep_freed_memory
from benchmark.arguments import new_parser
from benchmark.memory import is_out_of_memory
from benchmark.spec import NonFiniteError, UsageError

_RESUMED = ("run", "teacher")  # commands that keep what they have done


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if all went well, 1 if a cell failed, 2 for usage errors, 130 if interrupted, 141 if
        nobody reads the output any more.
    """
    _print_on_any_console()
    if threading.current_thread() is threading.main_thread():  # others may not
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by batch systems
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # not if it is ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_freed_memory()
    command = ""
    try:
        arguments = new_parser().parse_args(argv)
        command = arguments.command
        code = int(importlib.import_module(f"benchmark.commands.{command}").main(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as of `| head`
        # what is left in the buffer would fail again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, like a program that the signal ends
    except (UsageError, OSError) as error:
        sys.stderr.write(f"benchmark: {' '.join(str(error).split())}\n")
        return 2
    except NonFiniteError as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.stderr.write("benchmark: out of memory: try smaller settings\n")
        return 1
    except KeyboardInterrupt:
        resumes = "; the same command resumes here" * (command in _RESUMED)
        sys.stderr.write(f"benchmark: interrupted{resumes}\n")
        return 130


_PLAIN = {"±": "+/-", "≈": "~", "–": "-"}


def _print_on_any_console() -> None:
    """Print substitutes for characters that the console's encoding lacks."""
    codecs.register_error("plain", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end
