"""A command that runs on a terminal of a given width or in a pipe, and its output."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

HARNESS = Path(sys.executable).with_name("harness")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(
    arguments: tuple[str, ...],
    folder: Path,
    *,
    columns: int | None,
    errors: bool = False,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command on a terminal with ``columns``, or in a pipe if None.

    Return the exit code and the raw standard output, or standard error with ``errors``. The
    variable ``COLUMNS`` is not set."""
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "TERM")}
    variables |= {"TERM": "xterm-256color", **(env or {})}
    stream, other = ("stderr", "stdout") if errors else ("stdout", "stderr")
    if columns is None:
        reading, writing = os.pipe()
    else:
        reading, writing = os.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    files = {stream: writing, other: subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    run = subprocess.Popen([HARNESS, *arguments], cwd=folder, env=variables, **files)
    os.close(writing)
    found = b""
    try:
        while part := os.read(reading, 65536):
            found += part
    except OSError:  # Linux raises this error if the other side of a terminal is closed
        pass
    os.close(reading)
    return run.wait(), found.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Remove escape sequences for colours and cursor movements."""
    return ESCAPE.sub("", text)
