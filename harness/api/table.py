"""The tables of the command line as text, without colour."""

from __future__ import annotations

import io
import shutil
import sys

from rich.console import Console, RenderableType

from harness.bench.table import Grid
from harness.check import report as reports
from harness.check.events import Report
from harness.terminal import visible

# Columns where the text goes into no terminal: enough for a table of six backends.
WIDTH = 160


def report_text(report: Report) -> str:
    """The table of ``harness check`` under its title."""
    return _text(reports.title(report), reports.table(report))


def grid_text(grid: Grid) -> str:
    """A table of ``harness bench`` under its title."""
    return _text(grid.title, grid.rich())


def _text(title: str, table: RenderableType) -> str:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None, legacy_windows=False).print(table)
    rows = (line.rstrip() for line in drawn.getvalue().rstrip("\n").split("\n"))
    return "\n".join([visible(title), *rows])
