"""Progress bars: on a terminal, and nowhere else."""

import os
import struct
import subprocess
import sys

import pytest

fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))  # not on Windows

SCRIPT = """
from benchmark.progress import bar
with bar(total=3, description="counting") as progress:
    for _ in range(3):
        progress.update()
        progress.refresh()
"""


def test_without_a_terminal_there_is_no_bar():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_on_a_terminal_there_is_one_with_the_time_left():
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=child, check=True)
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert "counting:  33%" in shown
    assert "1/3 [" in shown and "<" in shown
