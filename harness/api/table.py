"""The tables of the command line as text."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType

from harness.terminal import visible

# Columns where the text goes into no terminal: enough for a table of six backends.
WIDTH = 160


def text_of(title: str, table: RenderableType, lines: Iterable[str] = ()) -> str:
    """A title, a table as wide as the terminal allows, and lines below it: without colour."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None, legacy_windows=False).print(table)
    rows = (line.rstrip() for line in drawn.getvalue().rstrip("\n").split("\n"))
    return "\n".join([visible(title), *rows, *map(visible, lines)])
