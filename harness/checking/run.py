"""Runs a whole check: one worker process a backend, cases shared, records kept as cells go.

The parent owns the oracle, the comparison and the records; it never imports a framework.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from harness.checking import history
from harness.checking.blame import Witnesses
from harness.checking.events import CheckEvents, Report
from harness.checking.history import records_of
from harness.checking.machines import CellPlace, ClusterMachines, Machines, ThisMachine
from harness.checking.pairs import Outliers, Pairs, recorded
from harness.checking.provenance import Greetings
from harness.checking.request import Request
from harness.checking.runner import CellRunner
from harness.results.cell import Cell, CellResult
from harness.results.file import RecordWriter
from harness.results.findings import PASSING
from harness.results.lines import Begin, BlameLine, Done, Head, Pair, RecordLine


class Engine(CellRunner):
    """One run of a request. Use as a context manager, so that no worker outlives it."""

    head: Head
    """The first line of the run's record, once it has begun."""

    def __init__(self, request: Request, events: CheckEvents | None = None) -> None:
        """As of :class:`CellRunner`.

        Raises:
            ClusterError: the request is for a cluster, and there is none.
        """
        super().__init__(request, events)
        self._machines: Machines = ClusterMachines(self) if request.on else ThisMachine(self)

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run every cell. Backends run beside each other, as many as there are cores."""
        started = time.monotonic()
        plan = self.cells()
        self.events.planned(plan)
        self._writer = RecordWriter(self.request.records) if self.request.records else None
        self._results = self._taken_up(plan)
        remembered = self._remembered(plan)
        self._results |= remembered
        left = [cell for cell in plan if cell not in self._results]
        self.cases.plan(cell.spec for cell in left)
        self._outliers = Outliers(left)
        self._witnesses = Witnesses()
        self._enough = threading.Event()
        self._pairs = Pairs(left)
        try:
            self.head = self.new_head(arguments, planned=len(left))
            self._write(self.head)
            for result in remembered.values():
                begin = Begin.of(result.cell, result.signature, result.since)
                self._write(*history.cell_lines(begin, result))
            if left and self._new is not None:
                self._new.append(self.head)
            self._machines.run(left, self._run_one, self._enough)
            seconds = time.monotonic() - started
            self._write(Done(seconds=round(seconds, 3)))
        finally:
            self.close()
            for writer in filter(None, (self._writer, self._new)):
                writer.close()
        place = {cell: number for number, cell in enumerate(plan)}
        pairs = sorted(self._found_pairs, key=lambda pair: [place[cell] for cell in pair.cells])
        lines = [line for line in self._outliers.lines.values() if line]
        found = [self._results[cell] for cell in plan if cell in self._results]
        left_out = len(plan) - len(found)
        return Report(found, lines, pairs, left_out, self.lacking, seconds)

    def _taken_up(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """With ``resume``, the results of cells that the record file holds already."""
        self._found_pairs: list[Pair] = []
        if not self.request.resume or self.request.records is None:
            return {}
        records = records_of(self.request.records, self.request)
        kept, reasons = self._machines.take_up(records, plan)
        self.events.again(reasons)
        self._found_pairs = [p for p in recorded(records) if all(cell in kept for cell in p.cells)]
        for result in kept.values():
            self.events.ended(result)
        return kept

    def _remembered(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """With ``history``, the results of cells that agreed when all was as it is now."""
        self._new: RecordWriter | None = None
        folder = self.request.history
        if folder is None:
            return {}
        known: dict[Cell, CellResult] = {}
        if not self.request.fresh:
            open_cells = [cell for cell in plan if cell not in self._results]
            found = history.read(folder, self.request)
            greetings = Greetings(self.request, self.workers)
            known, reasons = found.known(open_cells, self.signature, greetings)
            if reasons:
                self.events.again(reasons)
            for result in known.values():
                self.events.ended(result)
        if len(self._results) + len(known) < len(plan):
            self._new = RecordWriter(history.new_file(folder))
        return known

    def _run_one(self, cell: Cell, place: CellPlace) -> None:
        """Run a cell somewhere, and keep and tell what came of it."""
        kept = self._writer or self._new
        begin = Begin.of(cell, place.signature(cell) if kept else None)
        # It only tells what a run that was killed was at: not worth a wait for the disk.
        self._write(begin, durable=False)
        with self._lock:
            self.events.began(cell)
        result = place.run_cell(cell)
        self.cases.done(cell.spec)
        if self.stopping.is_set():
            return  # its worker was killed from here: whatever came of it is not a verdict
        with self._lock:
            self._results[cell] = result
            self._outliers.ended(result)
            judged = [
                BlameLine(**vars(each.cell), blame=each.blame)
                for each in self._witnesses.heard(result)
                if each.blame
            ]
            pairs = self._pairs.ended(result)
            self._found_pairs += pairs
        if self.request.fail_fast and result.verdict not in PASSING:
            self._enough.set()
        _, *lines = history.cell_lines(begin, result) if kept else [begin]
        self._write(*pairs, *judged, *lines)
        with self._lock:
            self.events.ended(result)
        if self._new is not None:
            self._new.append(begin, *lines)
        for finding in result.findings:
            finding.settle()

    def _write(self, *lines: RecordLine, durable: bool = True) -> None:
        if self._writer:
            self._writer.append(*lines, durable=durable)
