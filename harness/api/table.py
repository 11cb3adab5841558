"""The tables of the command line as text, without colour."""

from __future__ import annotations

import io

from harness.checking import report as reports
from harness.checking.events import Report
from harness.output.printing import drawing
from harness.output.table import Grid, show


def report_text(report: Report) -> str:
    """The table of ``harness check`` under its title."""
    return grid_text(*reports.tables(report))


def grid_text(*forms: Grid) -> str:
    """A table under its title, in the first of its forms that fits."""
    drawn = io.StringIO()
    show(drawing(drawn), *forms)
    return "\n".join(line.rstrip() for line in drawn.getvalue().rstrip("\n").split("\n"))
