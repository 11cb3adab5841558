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
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.case import Case
from harness.cells import Cell, CellResult, CellRun, finding_record, own_fault
from harness.differences import Differences, known_differences
from harness.errors import HarnessError, UsageError, did_you_mean
from harness.findings import PASSING, Finding
from harness.planning import (
    Request,
    check_request,
    choose_backends,
    choose_checks,
    lesson6,
    make_case,
    slowest_first,
)
from harness.plugins import available
from harness.processes import kill_all
from harness.proof import complex_step_gap
from harness.records import RecordWriter, head
from harness.resume import ended_cells, request_record, take_up
from harness.signature import Greetings, Signatures, greeting
from harness.spec.lower import FREE_SIZES, Spec, load_specs
from harness.supervisor import Launch, Worker

# Seconds that a run waits for its threads when it is stopped.
STOPPING = 2.0


class Events:
    """What a run tells while it goes; override what is of interest. Called from several threads,
    one call at a time."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """All cells, before the first."""

    def again(self, reasons: Sequence[str]) -> None:
        """Cells that had ended are run again, in words, before the first."""

    def began(self, cell: Cell) -> None:
        """A cell starts."""

    def found(self, cell: Cell, finding: Finding) -> None:
        """A check of it is done."""

    def ended(self, result: CellResult) -> None:
        """A cell is done."""


@dataclass
class Report:
    """All results, in the order of the plan."""

    results: list[CellResult]

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


class Engine:
    """One run of a request. Use as a context manager, so that no worker outlives it."""

    def __init__(self, request: Request, events: Events | None = None) -> None:
        self.request = request
        self.events = events or Events()
        self.backends = choose_backends(request.backends)
        choose_checks(request.checks)
        check_request(request, self.backends)
        self.specs = load_specs(request.specs or lesson6(), request.folders)
        for spec in self.specs:
            self._check_sizes(spec)
        self.differences: Differences = known_differences(request.folders)
        self.workers = {name: Worker(self._launch(name)) for name in self.backends}
        self._cases: dict[tuple[str, bool], Case] = {}
        self.proofs: dict[str, float] = {}  # how far the oracle's gradient is from the complex step
        self._case_locks = {spec.name: threading.Lock() for spec in self.specs}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

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
            Cell(spec.name, backend, request.device, dtype, path)
            for backend in self.backends
            for spec in self.specs
            for dtype in request.dtypes
            for path in request.paths
        ]

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run every cell. Backends run beside each other, as many as there are cores."""
        plan = self.cells()
        self.events.planned(plan)
        writer = RecordWriter(self.request.records) if self.request.records else None
        results = self._taken_up(plan)
        jobs = self.request.jobs or len(os.sched_getaffinity(0))
        try:
            if writer:
                first = head(arguments, self._hellos(), self.request.environment)
                writer.append({**first, "request": request_record(self.request)})
            pool = ThreadPoolExecutor(jobs)
            futures = [
                pool.submit(self._run_backend, name, plan, results, writer)
                for name in slowest_first(self.backends)
            ]
            try:
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
        return Report([results[cell] for cell in plan if cell in results])

    def _taken_up(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """With ``resume``, the results of cells that the record file holds already."""
        if not self.request.resume or self.request.records is None:
            return {}
        ended = ended_cells(self.request.records, self.request)
        greetings = Greetings(self.request, self.workers)
        kept, reasons = take_up(plan, ended, self._signature, greetings)
        if reasons:
            self.events.again(reasons)
        for result in kept.values():
            self.events.ended(result)
        return kept

    def _signature(self, cell: Cell) -> dict[str, str]:
        """What decides the numbers of a cell."""
        return self._signatures.of(cell, self._spec(cell.spec))

    @cached_property
    def _signatures(self) -> Signatures:
        return Signatures(self.request, self.differences)

    def _spec(self, name: str) -> Spec:
        return next(spec for spec in self.specs if spec.name == name)

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
            begin: dict[str, Any] = {"kind": "begin", **cell.record()}
            if writer:
                begin["signature"] = self._signature(cell)
            self._tell(writer, begin, self.events.began, cell)
            result = self.run_cell(cell)
            if self._stopping.is_set():
                return  # its worker was killed from here: whatever came of it is no verdict
            with self._lock:
                results[cell] = result
            if writer:
                for finding in result.findings:
                    writer.append(finding_record(result, finding))
            end = {
                "kind": "end",
                **cell.record(),
                "verdict": result.verdict,
                "seconds": round(result.seconds, 6),
                "could_not_run": result.could_not_run,
                "location": result.location,
                "greeting": greeting(self.workers[backend]),
            }
            self._tell(writer, end, self.events.ended, result)
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
        spec = self._spec(cell.spec)

        def tell(finding: Finding) -> None:
            with self._lock:
                self.events.found(cell, finding)

        try:
            small, own = self.case(spec, own=False), self.case(spec, own=True)
        except HarnessError:
            raise
        except Exception as error:
            finding = own_fault(error)
            tell(finding)
            return CellResult(cell, [finding], could_not_run=True)
        run = CellRun(
            cell,
            small,
            own,
            self.workers[cell.backend],
            self.differences,
            self.request.timeout,
            checks or self.request.checks,
        )
        return run.run(tell)

    def case(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes; made once."""
        key = (spec.name, own)
        with self._case_locks[spec.name]:
            if key not in self._cases:
                self._cases[key] = make_case(spec, self.request, own=own)
                if not own:
                    self.proofs[spec.name] = complex_step_gap(self._cases[key])
            return self._cases[key]

    def _check_sizes(self, spec: Spec) -> None:
        for size in self.request.sizes:
            if size not in (*spec.model.sizes, *FREE_SIZES):
                known = (*spec.model.sizes, *FREE_SIZES)
                raise UsageError(
                    f"{spec.name} has no size {size!r}{did_you_mean(size, known)} "
                    f"(known: {', '.join(known)})"
                )

    def _launch(self, backend: str) -> Launch:
        return Launch(
            backend,
            python=self.request.pythons.get(backend, sys.executable),
            environment=self.request.environment.get(backend, {}),
            memory_limit=self.request.memory_limit,
            handler=self.request.handler,
        )

    def _hellos(self) -> dict[str, Any]:
        origins = available()
        return {
            name: f"{origins[name].distribution} {origins[name].version}"
            for name in self.backends
            if name in origins
        }
