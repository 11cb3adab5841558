"""The events of a run of checks, and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, Finding
from harness.results.lines import Pair


class CheckEvents:
    """A receiver of the events of a run. Subclasses override the methods that they need; the run
    calls one method at a time, from different threads."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """Receive all planned cells before the first cell starts."""

    def again(self, reasons: Sequence[str]) -> None:
        """Receive the reasons why cells that have results run again, before the first cell
        starts."""

    def began(self, cell: Cell) -> None:
        """Receive a cell that is starting."""

    def starting(self, backend: str, seconds: float) -> None:
        """Receive that a backend's process starts, which may take up to ``seconds`` seconds."""

    def found(self, cell: Cell, finding: Finding) -> None:
        """Receive a finding of a running cell."""

    def ended(self, result: CellResult) -> None:
        """Receive the result of a finished cell."""


@dataclass
class Report:
    """The results of a run, in the order in which its cells were planned."""

    results: list[CellResult]
    outliers: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    left_out: int = 0
    """The number of cells that did not start because an earlier cell failed."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """The backends that were left out because their framework is not installed -> the command that
    installs it."""
    seconds: float = 0.0
    """The duration of the run in seconds."""

    @property
    def exit_code(self) -> int:
        """The exit code of the run.

        - 0: all cells agree, or have known differences only;
        - 1: some cells differ;
        - 3: a backend could not run, or no cell compared anything.
        """
        verdicts = {r.verdict for r in self.results if r.findings}
        if any(r.could_not_run for r in self.results) or verdicts & {
            "crashed",
            "timeout",
            "out-of-memory",
        }:
            return 3
        if verdicts <= PASSING:
            return 0 if "agree" in verdicts or "known-difference" in verdicts else 3
        return 1
