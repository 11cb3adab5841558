"""What a run of checks tells: while it goes, and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, Finding
from harness.results.lines import Pair


class CheckEvents:
    """What a run tells while it goes; override what is of interest. Called from several threads,
    one call at a time."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """All cells, before the first."""

    def again(self, reasons: Sequence[str]) -> None:
        """Cells that had ended are run again, in words, before the first."""

    def began(self, cell: Cell) -> None:
        """A cell starts."""

    def starting(self, backend: str, seconds: float) -> None:
        """The process of a backend is started, which may take so many seconds."""

    def found(self, cell: Cell, finding: Finding) -> None:
        """A check of it is done."""

    def ended(self, result: CellResult) -> None:
        """A cell is done."""


@dataclass
class Report:
    """All results, in the order of the plan."""

    results: list[CellResult]
    outliers: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    left_out: int = 0
    """Cells that were not begun, because another had failed."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Backends that were left out, as their framework is not installed, and what brings it."""
    seconds: float = 0.0
    """How long the run took."""

    @property
    def exit_code(self) -> int:
        """0: all agree, or differ as known; 1: something differs; 3: a backend could not be run.

        A cell to which none of the wanted checks applies has no say, but some cell must.
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
