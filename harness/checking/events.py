"""The events and the report of a run of checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, Finding
from harness.results.lines import Pair


class CheckEvents:
    """The events of a run. Override the methods of interest; threads call them one at a time."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """Receive all cells before the first one starts."""

    def again(self, reasons: Sequence[str]) -> None:
        """Receive the reasons why finished cells run again, before the first one starts."""

    def began(self, cell: Cell) -> None:
        """Receive a cell that starts."""

    def starting(self, backend: str, seconds: float) -> None:
        """Receive the start of a backend's process, which may take ``seconds`` seconds."""

    def found(self, cell: Cell, finding: Finding) -> None:
        """Receive a finding of a cell."""

    def ended(self, result: CellResult) -> None:
        """Receive the result of a finished cell."""


@dataclass
class Report:
    """The results of a run, in the order of the plan."""

    results: list[CellResult]
    outliers: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    left_out: int = 0
    """The number of cells that did not start because another one failed."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Backends that were left out because their framework is missing -> what installs it."""
    seconds: float = 0.0
    """The duration of the run."""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 all agree or differ as known; 1 some differ; 3 a backend could not run.

        A cell without an applicable check does not count. If all others pass but none agrees or
        differs as known, the code is 3.
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
