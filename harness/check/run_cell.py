"""A cell is run: a spec on a backend, in a dtype, on a path; all its checks, one verdict each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.check.blame import blame, unheard
from harness.check.cell import Cell, CellResult, own_fault
from harness.check.checks import CHECKS, FLOAT64_ONLY, IN_ONE, NOT_NARROW, Check, Context
from harness.check.divergence import divergence
from harness.check.findings import BROKEN, PASSING, Finding, Verdict
from harness.check.known_differences import Differences
from harness.check.localise import Expectations, later_location
from harness.check.request import choose_checks
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.oracle.patience import OracleFault, at_work, spent
from harness.program.ir import Program, UpdateRule
from harness.runtime.precision import narrow
from harness.runtime.tensors import IllFormed
from harness.worker.remote import Remote, WorkerFault, not_offered, told
from harness.worker.worker import Outcome, Worker

# The check of what every primitive gives: made of every cell, whatever else is asked for, and
# shown where it fails.
PRIMITIVES = "primitives"


class CannotCheck(UsageError):
    """What is to be checked is none that can be, which is the user's to mend: the run ends."""


@dataclass(frozen=True)
class CellRun:
    """Everything that running a cell needs. ``checks`` are patterns of group names; ``dtypes`` are
    those that the same spec is checked in."""

    cell: Cell
    case: Case
    own: Case
    worker: Worker
    differences: Differences
    timeout: float = 120.0
    checks: tuple[str, ...] = ("*",)
    thorough: bool = False
    repeat: int = 0
    dtypes: tuple[str, ...] = ()

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
                self.differences.apply(result, finding)
                yield finding
        except CannotCheck:
            raise
        except Exception as error:
            result.could_not_run = True
            yield own_fault(error)

    def needs(self) -> tuple[Program | UpdateRule | None, ...]:
        """What the backend must have all primitives of."""
        return (self.case.training, self.case.inference, self.case.spec.update)

    def _findings(self, result: CellResult) -> Iterator[Finding]:
        started = self.worker.start()
        if not started.ok:
            result.could_not_run = True
            yield _fault("start", started)
            return
        hello = self.worker.hello or {}
        result.doubts = hello.get("doubts", ())
        result.version = ", ".join(f"{n} {v}" for n, v in hello.get("versions", {}).items())
        # What a backend does not claim to have is not a fault of it.
        lacking = not_offered(hello, self.cell.device, self.cell.dtype, self.needs())
        if lacking:
            yield Finding("open", faults=[lacking], verdict="unsupported")
            return
        remote = Remote(self.worker, self.timeout, spent)
        try:
            context = self.opened(remote, result)
        except WorkerFault as fault:
            result.could_not_run = fault.outcome.status != "error"
            yield _fault("open", fault.outcome)
            return
        yield from self.checked(context)
        result.outputs, result.values = context.outputs, context.values
        if self.worker.pid is not None and any(f.verdict == "differ" for f in result.findings):
            self.explain(context, result)

    def opened(self, remote: Remote, result: CellResult) -> Context:
        """All that the checks work with, once the backend has opened its session."""
        result.layers, cell = self._open(remote), self.cell
        context = Context(self.case, self.own, remote, cell.path, cell.dtype, cell.device)
        return replace(context, repeat=self.repeat)

    def explain(self, context: Context, result: CellResult) -> None:
        """Say in a result that differs where, and who is at fault."""
        result.location = self._locate(context.remote, result)
        self._blame(context, result)

    def checked(self, context: Context) -> Iterator[Finding]:
        """The findings of all checks asked for; what comes after a worker that was lost is not
        run."""
        starts, lost = self.worker.starts, "open"
        asked = choose_checks(self.checks, self.thorough)
        for name, check in self.chosen(asked).items():
            if self.worker.starts != starts or self.worker.pid is None:
                yield Finding(name, faults=[f"the worker was lost in {lost}"], verdict="not-run")
                continue
            lost = name
            for finding in self._check(name, check, context):
                if name in asked or finding.verdict not in PASSING:
                    yield finding

    def chosen(self, asked: Sequence[str]) -> dict[str, Check]:
        """The checks that are made of this cell, of those asked for."""
        wanted = [name for name in asked if self._is_for(name, self.cell.dtype)]
        return {name: CHECKS[name] for name in (PRIMITIVES, *wanted)}

    def _is_for(self, check: str, dtype: str) -> bool:
        """Whether a check is made in a dtype. One that another cell makes is not made again, unless
        it is asked for by name."""
        if check in FLOAT64_ONLY and dtype != "float64":
            return False
        if check in NOT_NARROW and narrow(dtype):
            return False
        enough = IN_ONE.get(check, dtype)
        offered = (self.worker.hello or {}).get("dtypes", ())
        return enough == dtype or not (
            self.checks == ("*",) and enough in self.dtypes and enough in offered
        )

    def _locate(self, remote: Remote, result: CellResult) -> str:
        """Where the forward pass first parts from the oracle; if it does not, which phase does."""
        material = self.case.material
        first = next((f for f in result.findings if f.verdict == "differ"), None)
        if first is not None and first.check == PRIMITIVES:
            return f"primitive: {first.faults[0]}"
        try:
            self._open(remote)
            remote.load(material)
            trace = remote.trace("training", material)
        except WorkerFault as fault:
            return f"no trace could be had: {fault}"
        try:
            with at_work():
                expectations = Expectations(self.case, material, self.cell.dtype)
                judged = expectations.judged(trace)
                wrong = next(((p, most) for p, most in judged if not p.within(most)), None)
                if wrong is None:
                    return later_location(result.findings, self.case.training)
                location = expectations.located(*wrong)
                result.divergence = divergence(judged, wrong[0], location.place, self.case.spec)
                return str(location)
        except OracleFault as fault:
            return f"no place could be found: {fault}"

    def _blame(self, context: Context, result: CellResult) -> None:
        """Run the other paths, to say who is at fault."""
        try:
            blame(context, result)
        except (WorkerFault, OracleFault) as fault:
            result.blame = unheard(fault)
            # As after a check in which something was raised.
            self.worker.close()

    def _open(self, remote: Remote) -> dict[str, str]:
        cell = self.cell
        return remote.open(
            self.case.training,
            self.case.inference,
            self.case.spec.update,
            cell.path,
            cell.dtype,
            cell.device,
        )

    def _check(self, name: str, check: Check, context: Context) -> Iterator[Finding]:
        before = time.perf_counter()
        try:
            for finding in check(context):
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
