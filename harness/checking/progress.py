"""What a run of checks shows while it goes, on standard error."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from harness.checking.checks import FINDINGS
from harness.checking.events import CheckEvents
from harness.output.progress import Progress
from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, Finding

# What a cell that is not done counts at most, however many checks it has behind it.
NEARLY = 0.95
# Fewer cells than this are too unequal to tell from some how long the others take.
FEW = 10


class CheckProgress(CheckEvents):
    """A bar on a terminal, a line for each cell elsewhere."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(console, "checking")
        self._started: set[str] = set()
        self._cells, self._ended = 0, 0
        self._found: dict[Cell, int] = {}

    def planned(self, cells: Sequence[Cell]) -> None:
        self._cells = len(cells)
        self.bar.plan(self._cells, forecast=self._cells >= FEW)
        self._count()

    def again(self, reasons: Sequence[str]) -> None:
        for reason in reasons:
            self.bar.line(reason)

    def began(self, cell: Cell) -> None:
        self._found[cell] = 0
        self.bar.doing(str(cell))

    def starting(self, backend: str, seconds: float) -> None:
        text = f"starting {backend} (limit: {seconds:g} s)"
        (self.bar.doing if backend in self._started else self.bar.step)(text)
        self._started.add(backend)

    def found(self, cell: Cell, finding: Finding) -> None:
        self._found[cell] = self._found.get(cell, 0) + 1
        self._count()

    def ended(self, result: CellResult) -> None:
        self.bar.once(result.cell.backend, result.doubts)
        self._found.pop(result.cell, None)
        self._ended += 1
        if result.kept:
            # It took no time, so it says nothing of how long the others take.
            self.bar.plan(self._cells, self._ended, forecast=self._cells >= FEW)
        self._count()
        failing = result.verdict not in PASSING
        if failing or not self.bar.live:
            count = "" if self.bar.live else f"{self.bar.count()}: "
            self.bar.line(f"{count}{result.cell}: {result.verdict} ({result.seconds:.1f} s)")

    def _count(self) -> None:
        begun = sum(min(n / len(FINDINGS), NEARLY) for n in self._found.values())
        self.bar.at(self._ended + begun, f"{self._ended}/{self._cells}")
