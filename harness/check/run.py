"""Runs a whole check: one worker process a backend, cases shared, records kept as cells go.

The parent owns the oracle, the comparison and the records; it never imports a framework.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Protocol

from harness.check import history
from harness.check.blame import Witnesses
from harness.check.cell import Cell, CellResult
from harness.check.events import Report
from harness.check.findings import PASSING
from harness.check.outliers import Outliers
from harness.check.pairs import Pair, Pairs, recorded
from harness.check.provenance import Greetings
from harness.check.record_file import Records, RecordWriter
from harness.check.record_made import begin_record, blame_record
from harness.check.record_read import blocks, last_first
from harness.check.request import slowest_first
from harness.check.resume import nothing_yet, records_of, take_up
from harness.check.runner import CellRunner
from harness.oracle.threads import one_thread
from harness.worker.process import kill_all

# Seconds that a run waits for its threads when it is stopped.
STOPPING = 2.0


class CellPlace(Protocol):
    """Where a cell is run: here, or on another machine."""

    def signature(self, cell: Cell) -> Mapping[str, str] | None:
        """What decides the cell's numbers there, if that is known; asked before it is run."""

    def run_cell(self, cell: Cell) -> CellResult:
        """What came of it."""


class Engine(CellRunner):
    """One run of a request. Use as a context manager, so that no worker outlives it."""

    head: Mapping[str, Any] = {}
    """The first line of the run's record, once it has begun."""

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run every cell. Backends run beside each other, as many as there are cores."""
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
            self.head = {**self.new_head(arguments), "planned": len(left)}
            self._write(self.head)
            for result in remembered.values():
                self._write(
                    *history.cell_lines(
                        begin_record(result.cell, result.signature, result.since), result
                    )
                )
            if left and self._new is not None:
                self._new.append(self.head)
            self._run_left(left)
        finally:
            self.close()
            for writer in filter(None, (self._writer, self._new)):
                writer.close()
        place = {cell: number for number, cell in enumerate(plan)}
        pairs = sorted(self._found_pairs, key=lambda pair: [place[cell] for cell in pair.cells])
        lines = [line for line in self._outliers.lines.values() if line]
        found = [self._results[cell] for cell in plan if cell in self._results]
        left_out = len(plan) - len(found)
        return Report(found, lines, pairs, left_out, self.lacking)

    def _taken_up(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """With ``resume``, the results of cells that the record file holds already."""
        self._found_pairs: list[Pair] = []
        if not self.request.resume or self.request.records is None:
            return {}
        records = records_of(self.request.records, self.request)
        kept = self._take_up(records, plan)
        self._found_pairs = [p for p in recorded(records) if all(cell in kept for cell in p.cells)]
        for result in kept.values():
            self.events.ended(result)
        return kept

    def _take_up(self, records: Records, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        greetings = Greetings(self.request, self.workers)
        kept, reasons = take_up(plan, last_first(blocks(records)), self.signature, greetings)
        assert self.request.records is not None
        self.events.again(reasons if records.lines else [nothing_yet(self.request.records)])
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

    def _run_left(self, left: Sequence[Cell]) -> None:
        """Run cells from this process, a thread for each backend."""
        pool = ThreadPoolExecutor(self.request.jobs or len(os.sched_getaffinity(0)))
        futures = [
            pool.submit(self._run_backend, name, left) for name in slowest_first(self.backends)
        ]
        try:
            with one_thread():
                for future in futures:
                    future.result()
        except BaseException:
            # Ctrl-C too: the calls under way must end now. Those of the oracle cannot be
            # ended, and are not waited for long.
            self._stopping.set()
            end = time.monotonic() + STOPPING
            # Again and again: a cell may be starting its worker just now.
            kill_all()
            while wait(futures, 0.05).not_done and time.monotonic() < end:
                kill_all()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run_backend(self, backend: str, left: Iterable[Cell]) -> None:
        for cell in left:
            if cell.backend == backend and not self._stopping.is_set():
                if self._enough.is_set():
                    break
                self._run_one(cell, self)
        self.workers[backend].close()

    def _run_one(self, cell: Cell, place: CellPlace) -> None:
        """Run a cell somewhere, and keep and tell what came of it."""
        kept = self._writer or self._new
        begin = begin_record(cell, place.signature(cell) if kept else None)
        # It only tells what a run that was killed was at: not worth a wait for the disk.
        self._write(begin, durable=False)
        with self._lock:
            self.events.began(cell)
        result = place.run_cell(cell)
        self.cases.done(cell.spec)
        if self._stopping.is_set():
            return  # its worker was killed from here: whatever came of it is not a verdict
        with self._lock:
            self._results[cell] = result
            self._outliers.ended(result)
            judged = map(blame_record, self._witnesses.heard(result))
            pairs = self._pairs.ended(result)
            self._found_pairs += pairs
        if self.request.fail_fast and result.verdict not in PASSING:
            self._enough.set()
        _, *lines = history.cell_lines(begin, result) if kept else [begin]
        more = [*(pair.record() for pair in pairs), *judged]
        self._write(*more, *lines)
        with self._lock:
            self.events.ended(result)
        if self._new is not None:
            self._new.append(begin, *lines)
        for finding in result.findings:
            finding.settle()

    def _write(self, *lines: Mapping[str, Any], durable: bool = True) -> None:
        if self._writer:
            self._writer.append(*lines, durable=durable)
