"""What a run shows while it goes, on standard error."""

from __future__ import annotations

from rich.console import Console

from harness.output.progress import Progress
from harness.timing.contestant import TimedResult
from harness.timing.events import BenchEvents
from harness.timing.proofs import PROOFS
from harness.timing.request import Group

# What is done with a cell beside its rounds: it is prepared, warmed up and proved.
BESIDE = 3 + len(PROOFS)


class BenchProgress(BenchEvents):
    """A bar on a terminal, a line for each cell elsewhere."""

    def __init__(self, console: Console, rounds: int) -> None:
        self.bar = Progress(console, "timing")
        self._parts = BESIDE + rounds
        self._cells, self._ended, self._done = 0, 0, 0

    def planned(self, cells: int) -> None:
        self._cells = cells
        self.bar.plan(cells * self._parts)
        self._count()

    def expecting(self, group: Group) -> None:
        self.bar.doing(f"{group.cell('oracle')}: what must come of it")

    def doing(self, result: TimedResult, what: str) -> None:
        (self.bar.step if what == "preparing" else self.bar.now)(f"{result.cell}: {what}")
        self._done += 1
        self._count()

    def trying(self, result: TimedResult, path: str) -> None:
        self.bar.now(f"{result.cell}: trying path {path}")

    def ended(self, result: TimedResult) -> None:
        self.bar.once(result.cell.backend, result.record.hello.get("doubts", ()))
        self._ended += 1
        # Those that were refused have been let off the rest.
        self._done = max(self._done, self._ended * self._parts)
        self._count()
        if result.measured:
            rate = result.record.rate
            text = f"{result.cell}: {rate['median']:,.0f} {rate['unit']} per second"
        else:
            text = f"{result.cell}: {result.status}: {result.reason}"
        if not self.bar.live:
            self.bar.line(f"{self.bar.count()}: {text}")
        elif not result.measured:
            self.bar.line(text)

    def _count(self) -> None:
        self.bar.at(self._done, f"{self._ended}/{self._cells}")
