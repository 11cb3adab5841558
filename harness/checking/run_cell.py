"""A cell is run: a spec on a backend, in a dtype, on a path; all its checks, one verdict each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.checking.known_differences import Differences
from harness.checking.request import choose_checks
from harness.command.ranges import CELL_SECONDS
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.oracle.patience import OracleFault
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.results.cell import Cell, CellResult, own_fault
from harness.results.findings import BROKEN, PASSING, Finding, Verdict
from harness.runtime.tensors import IllFormed
from harness.worker.remote import WorkerFault, not_offered, told
from harness.worker.worker import Outcome, Worker


class CannotCheck(UsageError):
    """What is to be checked is none that can be, which is the user's to mend: the run ends."""


@dataclass(frozen=True)
class OpenedSubject:
    """A subject that its worker has opened: ``checks`` are those that are made of it, by name of
    their group; ``explain`` says in a result that differs where, and who is at fault.

    ``outputs`` and ``values`` are what the checks keep for other backends to be held against.
    ``not_compared`` says after the checks what no check could look at.
    """

    checks: Mapping[str, Callable[[], Iterable[Finding]]]
    explain: Callable[[CellResult], None]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    not_compared: Callable[[], Sequence[str]] = tuple


class Subject(Protocol):
    """What is checked in a cell: a spec on a backend, or a model of a user's own."""

    def needs(self, case: Case) -> tuple[Program | UpdateRule | None, ...]:
        """Of what the backend must have all primitives."""

    def open(self, run: CellRun, asked: Sequence[str], result: CellResult) -> OpenedSubject:
        """Have the run's worker open it; the checks are of those ``asked`` for, and the result
        gets its layers.

        Raises:
            WorkerFault: it could not be opened.
            CannotCheck: it is none that can be checked.
        """


@dataclass(frozen=True)
class CellRun:
    """Everything that running a cell needs: ``case`` is small, ``own`` has the spec's own sizes,
    and ``checks`` are patterns of group names."""

    cell: Cell
    case: Case
    own: Case
    worker: Worker
    differences: Differences
    subject: Subject
    timeout: float = CELL_SECONDS
    checks: tuple[str, ...] = ("*",)
    thorough: bool = False

    def run(self, tell: Callable[[Finding], None] = lambda _: None) -> CellResult:
        """Run the cell's checks; ``tell`` is called with each finding as it comes.

        Nothing that a backend does raises here, and a fault of the harness itself costs the cell
        only.
        """
        result = CellResult(self.cell)
        started = time.perf_counter()
        for finding in self._guarded(result):
            result.findings.append(finding)
            tell(finding)
        # What has failed once may have left anything behind, such as a device on which every
        # later call fails: the next cell gets a process of its own.
        if any(f.verdict in BROKEN for f in result.findings):
            self.worker.close()
        result.seconds = time.perf_counter() - started
        return result

    def _guarded(self, result: CellResult) -> Iterator[Finding]:
        try:
            for finding in self._findings(result):
                self.differences.apply(result, finding, self.case.training)
                yield finding
        except CannotCheck:
            raise
        except Exception as error:
            result.could_not_run = True
            yield own_fault(error)

    def _findings(self, result: CellResult) -> Iterator[Finding]:
        started = self.worker.start()
        if not started.ok:
            result.could_not_run = True
            yield _fault("start", started)
            return
        hello = self.worker.hello or {}
        result.doubts = hello.get("doubts", ())
        result.version = self.worker.versions
        # What a backend does not claim to have is not a fault of it.
        needs = self.subject.needs(self.case)
        lacking = not_offered(hello, self.cell.device, self.cell.dtype, needs)
        if lacking:
            yield Finding("open", faults=[lacking], verdict="unsupported")
            return
        asked = choose_checks(self.checks, self.thorough)
        try:
            opened = self.subject.open(self, asked, result)
        except WorkerFault as fault:
            result.could_not_run = fault.outcome.status != "error" or fault.cannot_start
            yield _fault("open", fault.outcome)
            return
        yield from self._checked(opened, asked)
        result.not_compared = tuple(opened.not_compared())
        result.outputs, result.values = opened.outputs, opened.values
        if self.worker.pid is not None and any(f.verdict == "differ" for f in result.findings):
            opened.explain(result)

    def _checked(self, opened: OpenedSubject, asked: Sequence[str]) -> Iterator[Finding]:
        """The findings of all checks asked for; what comes after a worker that was lost is not
        run."""
        starts, lost = self.worker.starts, "open"
        for name, check in opened.checks.items():
            if self.worker.starts != starts or self.worker.pid is None:
                yield Finding(name, faults=[f"the worker was lost in {lost}"], verdict="not-run")
                continue
            lost = name
            for finding in self._check(name, check):
                if name in asked or finding.verdict not in PASSING:
                    yield finding

    def _check(self, name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        before = time.perf_counter()
        try:
            for finding in check():
                finding.seconds = time.perf_counter() - before
                before = time.perf_counter()
                yield finding.judge()
        except WorkerFault as fault:
            yield _fault(name, fault.outcome, time.perf_counter() - before)
        except OracleFault as fault:
            seconds = time.perf_counter() - before
            yield Finding(name, faults=[str(fault)], verdict=fault.verdict, seconds=seconds)
        except IllFormed as error:
            seconds = time.perf_counter() - before
            yield Finding(name, faults=[str(error)], seconds=seconds).judge()
        except CannotCheck:
            raise
        except Exception as error:
            yield own_fault(error, name, time.perf_counter() - before)


def _fault(check: str, outcome: Outcome, seconds: float = 0.0) -> Finding:
    verdict: Verdict = "error" if outcome.status == "ok" else outcome.status
    return Finding(
        check,
        faults=[outcome.cause],
        verdict=verdict,
        seconds=seconds,
        traceback=told(outcome),
    )
