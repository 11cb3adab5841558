"""Running all cells of a request, with one worker process per backend. All backends share the test
cases. The parent process runs the oracle, compares results, and writes to the record file when a
cell ends. The parent process never imports a framework."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from harness.checking import history
from harness.checking.blame import Witnesses
from harness.checking.cell_places import CellPlace, ThisMachine
from harness.checking.cluster_cells import ClusterMachines
from harness.checking.history import records_of
from harness.checking.pairs import Pairs, read_pairs
from harness.checking.request import Request
from harness.checking.runner import CellRunner, CheckEvents, Report
from harness.checking.shared_cases import SharedCases
from harness.results.cell import Cell, CellResult
from harness.results.file import RecordWriter
from harness.results.findings import PASSING
from harness.results.lines import Begin, BlameLine, Done, Head, Pair, RecordLine


class Engine(CellRunner):
    """The execution of all cells of a request. When the ``with`` block of this context manager
    ends, the worker processes end too."""

    head: Head
    """The first line of the run's record file; set when the run begins."""

    def __init__(
        self,
        request: Request,
        events: CheckEvents | None = None,
        *,
        cases: SharedCases | None = None,
    ) -> None:
        """Create the workers, and choose where cells run: on this machine or on a cluster.

        Args:
            request: The request.
            events: The receiver of progress.
            cases: The test cases of an earlier request with the same specs and sizes.

        Raises:
            ClusterError: the request is for a cluster, but no cluster answers.
        """
        super().__init__(request, events, cases=cases)
        self._machines = ClusterMachines(self) if request.on else ThisMachine(self)

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run all cells, and return the report. ``arguments`` are the words of the command line,
        for the record file. By default, at most as many backends run at the same time as there are
        cores."""
        started = time.monotonic()
        plan = self.cells()
        self.events.planned(plan)
        self._writer = RecordWriter(self.request.records) if self.request.records else None
        self._results = self._resume(plan)
        reused = self._read_history(plan)
        self._results |= reused
        remaining = [cell for cell in plan if cell not in self._results]
        self.cases.plan(cell.spec for cell in remaining)
        self._witnesses = Witnesses()
        self._stop_early = threading.Event()
        self._pairs = Pairs(remaining)
        try:
            self.head = self.new_head(arguments, planned=len(remaining))
            self._write(self.head)
            for result in reused.values():
                begin = Begin.of(result.cell, result.signature, result.since)
                self._write(*history.cell_lines(begin, result))
            if remaining and self._history_writer is not None:
                self._history_writer.append(self.head)
            self._machines.run(remaining, self._run_planned, self._stop_early)
            seconds = time.monotonic() - started
            self._write(Done(seconds=round(seconds, 3)))
        finally:
            self.close()
            for writer in filter(None, (self._writer, self._history_writer)):
                writer.close()
        order = {cell: number for number, cell in enumerate(plan)}
        pairs = sorted(self._found_pairs, key=lambda pair: [order[cell] for cell in pair.cells])
        lines = [line for line in self._pairs.outliers.values() if line]
        results = [self._results[cell] for cell in plan if cell in self._results]
        left_out = len(plan) - len(results)
        return Report(results, lines, pairs, left_out, self.lacking, seconds)

    def _resume(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """Return those results in the record file that are still valid, as a dictionary from cell
        to result; these cells do not run again. ``plan`` has all cells of the request. The result
        is empty unless the option ``--resume`` is set."""
        self._found_pairs: list[Pair] = []
        if not self.request.resume or self.request.records is None:
            return {}
        records = records_of(self.request.records, self.request)
        reused, reasons = self._machines.reuse_results(records, plan)
        self.events.rerunning(reasons)
        self._found_pairs = [
            p for p in read_pairs(records) if all(cell in reused for cell in p.cells)
        ]
        for result in reused.values():
            self.events.ended(result)
        return reused

    def _read_history(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """Return results from the history folder, as a dictionary from cell to result: those of
        cells in ``plan`` that agreed under the same conditions. The result is empty if the request
        has no history folder."""
        self._history_writer: RecordWriter | None = None
        folder = self.request.history
        if folder is None:
            return {}
        reused: dict[Cell, CellResult] = {}
        if not self.request.fresh:
            open_cells = [cell for cell in plan if cell not in self._results]
            recorded, ignored = history.read_history(folder, self.request)
            reused, reasons = self.reuse_results(open_cells, recorded, history.KEPT)
            if ignored or reasons:
                self.events.rerunning([*ignored, *reasons])
            for result in reused.values():
                self.events.ended(result)
        if len(self._results) + len(reused) < len(plan):
            self._history_writer = RecordWriter(history.new_file(folder))
        return reused

    def _run_planned(self, cell: Cell, place: CellPlace) -> None:
        """Run a cell on this machine or on a cluster node (``place``), write its lines to the
        record file, and report its events."""
        writer = self._writer or self._history_writer
        begin = Begin.of(cell, place.signature(cell) if writer else None)
        # This line only shows which cells were running when a run was killed, so do not wait for
        # the disk.
        self._write(begin, durable=False)
        with self._lock:
            self.events.began(cell)
        result = place.run_cell(cell)
        self.cases.done(cell.spec)
        if self.stopping.is_set():
            return  # the run was stopped and killed this worker, so the result means nothing
        with self._lock:
            self._results[cell] = result
            judged = [
                BlameLine(**vars(earlier.cell), blame=earlier.blame)
                for earlier in self._witnesses.compare(result)
                if earlier.blame
            ]
            pairs = self._pairs.ended(result)
            self._found_pairs += pairs
        if self.request.fail_fast and result.verdict not in PASSING:
            self._stop_early.set()
        _, *lines = history.cell_lines(begin, result) if writer else [begin]
        self._write(*pairs, *judged, *lines)
        with self._lock:
            self.events.ended(result)
        if self._history_writer is not None:
            self._history_writer.append(begin, *lines)
        for finding in result.findings:
            finding.settle()

    def _write(self, *lines: RecordLine, durable: bool = True) -> None:
        if self._writer:
            self._writer.append(*lines, durable=durable)
