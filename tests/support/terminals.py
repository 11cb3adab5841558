"""A command on a terminal of a given width, or in a pipe, and what it shows there."""

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
    """Exit code and raw standard output (or error, with ``errors``) on a terminal of so many
    columns; in a pipe if None. ``COLUMNS`` is not set."""
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
    except OSError:  # how Linux says that the other side of a terminal is closed
        pass
    os.close(reading)
    return run.wait(), found.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Without what colours and moves the cursor."""
    return ESCAPE.sub("", text)
