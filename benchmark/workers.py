"""Imported ahead by the process that workers are forked from: what they run, as it is now."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all its processes

from benchmark import execute  # noqa: E402
from benchmark.provenance import remember_code  # noqa: E402

__all__ = ["execute"]

remember_code()
