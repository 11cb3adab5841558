"""What a run of ``harness bench`` tells while it goes."""

from __future__ import annotations

from harness.timing.contestant import TimedResult
from harness.timing.request import Group


class BenchEvents:
    """What a run tells while it goes; override what is of interest."""

    def planned(self, cells: int) -> None:
        """The number of cells, before the first."""

    def expecting(self, group: Group) -> None:
        """The oracle computes what a group's results must be."""

    def doing(self, result: TimedResult, what: str) -> None:
        """A part of a cell's measurement begins."""

    def trying(self, result: TimedResult, path: str) -> None:
        """A path is tried, to find the fastest."""

    def ended(self, result: TimedResult) -> None:
        """A cell is done."""
