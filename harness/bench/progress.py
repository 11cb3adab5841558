"""What a run shows while it goes, on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.bench.contestant import TimedResult
from harness.bench.request import Group
from harness.bench.run import BenchEvents
from harness.terminal import line, visible


class BenchProgress(BenchEvents):
    """A bar on a terminal, a line for each cell elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("timing"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[cell]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, cell="")

    def planned(self, cells: int) -> None:
        self.bar.update(self.task, total=cells)

    def expecting(self, group: Group) -> None:
        self._show(f"{group.cell('oracle')}: what must come of it")

    def doing(self, result: TimedResult, what: str) -> None:
        self._show(f"{result.cell}: {what}")

    def ended(self, result: TimedResult) -> None:
        self.bar.advance(self.task)
        if result.measured:
            rate = result.record.rate
            text = f"{result.cell}: {rate['median']:,.0f} {rate['unit']} per second"
        else:
            text = f"{result.cell}: {result.status}: {result.reason}"
        if not (result.measured and self.console.is_terminal):
            line(self.console, text)

    def _show(self, what: str) -> None:
        self.bar.update(self.task, cell=visible(what))
