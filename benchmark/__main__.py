"""``python -m benchmark``."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # ends quietly during imports, which take seconds; `main` does it in one line
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from benchmark.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
