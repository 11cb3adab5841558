"""Runs cells: one worker process a backend, cases shared, records appended as cells start and end.

The parent owns the oracle, the comparison and the records; it never imports a framework.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cached_property
from typing import Any

from harness.check.blame import Witnesses
from harness.check.cell import Cell, CellResult, end_record, finding_record, own_fault
from harness.check.differences import Differences, known_differences
from harness.check.events import CheckEvents, Report
from harness.check.findings import PASSING, Finding
from harness.check.outliers import Outliers
from harness.check.pairs import Pair, Pairs, recorded
from harness.check.provenance import Greetings, Signatures, greeting, labelled, origins
from harness.check.recorded import ended
from harness.check.records import RecordWriter, head
from harness.check.request import Request, check_request, checks_of, slowest_first
from harness.check.resume import records_of, request_record, take_up
from harness.check.run_cell import CellRun
from harness.check.shared_cases import SharedCases
from harness.columns import choose
from harness.errors import HarnessError, UsageError
from harness.oracle.case import Case
from harness.oracle.patience import OracleFault, Patience, with_patience
from harness.oracle.threads import one_thread
from harness.spec.asked_sizes import check_asked
from harness.spec.library import Library, lesson6
from harness.spec.model import Spec
from harness.spec.shelf import Shelf
from harness.worker.launch import Launch, usual_start_timeout
from harness.worker.process import kill_all
from harness.worker.worker import Worker

# Seconds that a run waits for its threads when it is stopped.
STOPPING = 2.0


class Engine:
    """One run of a request. Use as a context manager, so that no worker outlives it."""

    def __init__(self, request: Request, events: CheckEvents | None = None) -> None:
        self.request = request
        self.events = events or CheckEvents()
        columns = choose(request.backends, request.pythons)
        self.backends, self.lacking = columns.names, columns.lacking
        check_request(request, (*self.backends, *self.lacking))
        request = replace(request, checks=checks_of(request), pythons=columns.pythons)
        self.request = request
        self.specs = Shelf(Library(tuple(request.folders)))
        self.applied = check_asked(request.sizes, self._own_sizes())
        if request.given is not None and self.specs.names != (request.given.spec,):
            raise UsageError(f"numbers of {request.given.spec} are given: check it, and no other")
        self.differences: Differences = known_differences(request.folders)
        self.workers = {name: Worker(self._launch(name)) for name in self.backends}
        self.cases = SharedCases(request)
        self.head: dict[str, Any] = {}
        self._found_pairs: list[Pair] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._enough = threading.Event()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._stopping.set()
        for worker in self.workers.values():
            worker.close()

    def cells(self) -> list[Cell]:
        """The plan: every spec on every backend, dtype by dtype and path by path."""
        request = self.request
        return [
            Cell(spec, backend, request.device, dtype, path)
            for backend in self.backends
            for spec in self.specs.names
            for dtype in request.dtypes
            for path in request.paths
        ]

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run every cell. Backends run beside each other, as many as there are cores."""
        plan = self.cells()
        self.events.planned(plan)
        writer = RecordWriter(self.request.records) if self.request.records else None
        results = self._taken_up(plan)
        self.cases.plan(cell.spec for cell in plan if cell not in results)
        self._outliers = Outliers(cell for cell in plan if cell not in results)
        self._witnesses = Witnesses()
        self._pairs = Pairs(cell for cell in plan if cell not in results)
        jobs = self.request.jobs or len(os.sched_getaffinity(0))
        try:
            self.head = head(arguments, origins(self.backends), self.request.environment)
            self.head["request"] = request_record(self.request)
            self.head |= labelled(self.workers)
            if writer:
                writer.append(self.head)
            pool = ThreadPoolExecutor(jobs)
            futures = [
                pool.submit(self._run_backend, name, plan, results, writer)
                for name in slowest_first(self.backends)
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
        finally:
            self.close()
            if writer:
                writer.close()
        place = {cell: number for number, cell in enumerate(plan)}
        pairs = sorted(self._found_pairs, key=lambda pair: [place[cell] for cell in pair.cells])
        lines = [line for line in self._outliers.lines.values() if line]
        found = [results[cell] for cell in plan if cell in results]
        left_out = len(plan) - len(found)
        return Report(found, lines, pairs, left_out, self.lacking)

    def _taken_up(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """With ``resume``, the results of cells that the record file holds already."""
        if not self.request.resume or self.request.records is None:
            return {}
        records = records_of(self.request.records, self.request)
        greetings = Greetings(self.request, self.workers)
        kept, reasons = take_up(plan, ended(records), self.signature, greetings)
        if reasons:
            self.events.again(reasons)
        self._found_pairs = [p for p in recorded(records) if all(cell in kept for cell in p.cells)]
        for result in kept.values():
            self.events.ended(result)
        return kept

    def signature(self, cell: Cell) -> dict[str, str]:
        """The signature of a cell: what decides its numbers."""
        return self._signatures.of(cell, self.specs[cell.spec])

    @cached_property
    def _signatures(self) -> Signatures:
        return Signatures(self.request, self.differences)

    def _run_backend(
        self,
        backend: str,
        plan: Iterable[Cell],
        results: dict[Cell, CellResult],
        writer: RecordWriter | None,
    ) -> None:
        for cell in plan:
            if cell.backend != backend or cell in results or self._stopping.is_set():
                continue
            if self._enough.is_set():
                break
            begin: dict[str, Any] = {"kind": "begin", **cell.record()}
            if writer:
                begin["signature"] = self.signature(cell)
            self._tell(writer, begin, self.events.began, cell)
            result = self.run_cell(cell)
            self.cases.done(cell.spec)
            if self._stopping.is_set():
                return  # its worker was killed from here: whatever came of it is no verdict
            result.greeting = greeting(self.workers[backend])
            with self._lock:
                results[cell] = result
                self._outliers.ended(result)
                self._witnesses.heard(result)
                pairs = self._pairs.ended(result)
                self._found_pairs += pairs
            if self.request.fail_fast and result.verdict not in PASSING:
                self._enough.set()
            if writer:
                found = [finding_record(result, finding) for finding in result.findings]
                for record in [*found, *(pair.record() for pair in pairs)]:
                    writer.append(record)
            self._tell(writer, end_record(result), self.events.ended, result)
            for finding in result.findings:
                finding.settle()
        self.workers[backend].close()

    def _tell(
        self,
        writer: RecordWriter | None,
        record: Mapping[str, Any],
        event: Callable[[Any], None],
        what: Any,
    ) -> None:
        if writer:
            writer.append(record)
        with self._lock:
            event(what)

    def run_cell(self, cell: Cell, checks: tuple[str, ...] = ()) -> CellResult:
        """Run one cell of the plan; the worker of its backend stays warm.

        ``checks`` are patterns, and the request's if left out.
        """
        spec = self.specs[cell.spec]
        patience = Patience(self.request.timeout, self._stopping)

        def tell(finding: Finding) -> None:
            with self._lock:
                self.events.found(cell, finding)

        with with_patience(patience):
            try:
                small, own = self.case(spec, own=False), self.case(spec, own=True)
            except OracleFault as fault:
                finding = Finding("oracle", faults=[str(fault)], verdict=fault.verdict)
            except HarnessError:
                raise
            except Exception as error:
                finding = own_fault(error)
            else:
                return self._run_on(cell, small, own, checks, tell)
        tell(finding)
        return CellResult(cell, [finding], seconds=patience.spent, could_not_run=True)

    def _run_on(
        self,
        cell: Cell,
        small: Case,
        own: Case,
        checks: tuple[str, ...],
        tell: Callable[[Finding], None],
    ) -> CellResult:
        worker = self.workers[cell.backend]
        if worker.pid is None and not worker.given_up:
            with self._lock:
                self.events.starting(cell.backend, worker.launch.start_timeout)
        run = CellRun(
            cell,
            small,
            own,
            worker,
            self.differences,
            self.request.timeout,
            checks or self.request.checks,
            self.request.thorough,
            self.request.repeat,
            self.request.dtypes,
        )
        return run.run(tell)

    def case(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes; the same one where numbers are given."""
        return self.cases.get(spec, own=own and self.request.given is None)

    @property
    def proofs(self) -> Mapping[str, float]:
        """How far the oracle's gradient is from the complex step, by spec."""
        return self.cases.proofs

    def _own_sizes(self) -> dict[str, tuple[str, ...]]:
        """Load the specs, whose names and sizes these are."""
        found = {}
        for name in dict.fromkeys(self.request.specs or lesson6()):
            spec = self.specs.add(name)
            found[spec.name] = tuple(spec.model.sizes)
        return found

    def _launch(self, backend: str) -> Launch:
        return Launch(
            backend,
            python=self.request.pythons.get(backend, sys.executable),
            environment=self.request.environment.get(backend, {}),
            memory_limit=self.request.memory_limit,
            handler=self.request.handler,
            service=self.request.service,
            deterministic=self.request.deterministic,
            start_timeout=self.request.start_timeout or usual_start_timeout(),
        )
