"""``python -m benchmark``."""

import signal

from benchmark.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's way to interrupt
    raise SystemExit(main())
