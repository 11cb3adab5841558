"""The tables of the command line as text, without colour."""

from __future__ import annotations

import io
import shutil
import sys

from rich.console import Console

from harness.check import report as reports
from harness.check.events import Report
from harness.table import Grid, show
from harness.terminal import UNLIMITED


def report_text(report: Report) -> str:
    """The table of ``harness check`` under its title."""
    return grid_text(*reports.tables(report))


def grid_text(*forms: Grid) -> str:
    """A table under its title, in the first of its forms that fits."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    drawn = io.StringIO()
    show(Console(file=drawn, width=width, color_system=None, legacy_windows=False), *forms)
    return "\n".join(line.rstrip() for line in drawn.getvalue().rstrip("\n").split("\n"))
