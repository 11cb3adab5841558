"""Running one cell: the checks of a spec on one backend, in one dtype and on one path."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from harness.arrays import Arrays
from harness.checking.blame import blame
from harness.checking.checks import CHECKS, FLOAT64_ONLY, IN_ONE, NOT_NARROW, Context
from harness.checking.checks.values import PRIMITIVES
from harness.checking.first_difference import (
    Expectations,
    TracedPart,
    describe_later_phases,
    find_makers,
    find_wrong_result,
)
from harness.checking.known_differences import Differences
from harness.checking.request import HUGE_CHECKS, choose_checks
from harness.command.ranges import CELL_SECONDS
from harness.errors import UsageError
from harness.language.model import Spec
from harness.oracle.case import Case
from harness.oracle.time_limit import OracleFault, spent, within_limits
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.results.cell import Cell, CellResult, Divergence, Link, harness_fault
from harness.results.findings import BROKEN, PASSING, Blame, Finding, Verdict
from harness.runtime.answers import IllFormed
from harness.runtime.precision import narrow
from harness.runtime.session import without_number
from harness.worker.remote import Remote, WorkerFault, failure_text, missing_requirement
from harness.worker.worker import Outcome, Worker


class CannotCheck(UsageError):
    """Error in the user's own model or in its options. This error ends the whole command."""


@dataclass(frozen=True)
class OpenedSubject:
    """A spec's program, or a user's own model, that a worker has opened for the checks.

    - ``checks`` maps each check name to a function that yields findings (results of the check).
    - ``explain`` adds two things to a result that differs: the first difference, and which code is
      at fault.
    - ``outputs`` and ``values`` are arrays with which backends are later compared with each other.
    - ``not_compared`` is called after the checks and returns the names of results that no check
      compared.
    """

    checks: Mapping[str, Callable[[], Iterable[Finding]]]
    explain: Callable[[CellResult], None]
    outputs: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)
    not_compared: Callable[[], Sequence[str]] = tuple


class Subject(Protocol):
    """The subject of the checks of a cell: a spec's program on a backend, or a user's own model."""

    def needs(self, case: Case) -> tuple[Program | UpdateRule | None, ...]:
        """Return the programs and update rules that the backend must be able to run, i.e. whose
        primitives it must offer."""

    def open(self, run: CellRun, names: Sequence[str], result: CellResult) -> OpenedSubject:
        """Open the subject (a program or a user's model) on the worker of ``run``, and store in
        ``result`` which code runs each layer.

        Return the opened subject, with the checks named in ``names``.

        Raises:
            WorkerFault: the subject could not be opened.
            CannotCheck: the subject cannot be checked.
        """


@dataclass(frozen=True)
class CellRun:
    """A cell with everything that is needed to run its checks.

    - ``case`` is a test case with small sizes, and ``own`` is a test case of the same spec with the
      spec's own sizes. ``huge`` is a test case with the sizes that the user has set, if the model
      is then huge. If the model is huge at all sizes, all three are the same.
    - ``checks`` are patterns of check names, e.g. ``train*``.
    - ``differences`` has the known differences of frameworks.
    - ``stage`` is called with a text at the start of each part of the run.
    """

    cell: Cell
    case: Case
    own: Case
    worker: Worker
    differences: Differences
    subject: Subject
    timeout: float = CELL_SECONDS
    checks: tuple[str, ...] = ("*",)
    thorough: bool = False
    huge: Case | None = None
    stage: Callable[[str], None] = lambda _: None

    def run(self, report: Callable[[Finding], None] = lambda _: None) -> CellResult:
        """Run the cell's checks, and call ``report`` with each finding. Errors in the backend and
        in the harness become findings. An error in the harness ends this cell, but other cells
        still run."""
        result = CellResult(self.cell)
        started = time.perf_counter()
        for finding in self._catch_errors(result):
            result.findings.append(finding)
            report(finding)
        # After a crash, the device may fail in all later calls of this process. So close the
        # process; the next cell starts a new one.
        if any(f.verdict in BROKEN for f in result.findings):
            self.worker.close()
        result.seconds = time.perf_counter() - started
        return result

    def _catch_errors(self, result: CellResult) -> Iterator[Finding]:
        try:
            for finding in self._yield_findings(result):
                self.differences.apply(result, finding, self.case.training)
                yield finding
        except CannotCheck:
            raise
        except Exception as error:
            result.could_not_run = True
            yield harness_fault(error)

    def _yield_findings(self, result: CellResult) -> Iterator[Finding]:
        started = self.worker.start()
        if not started.ok:
            result.could_not_run = True
            yield _make_finding("start", started)
            return
        hello = self.worker.hello or {}
        result.doubts = hello.get("doubts", ())
        result.version = self.worker.versions
        # A primitive that the backend does not offer is not a fault.
        needs = self.subject.needs(self.case)
        lacking = missing_requirement(hello, self.cell.device, self.cell.dtype, needs)
        if lacking:
            yield Finding("open", faults=[lacking], verdict="unsupported")
            return
        names = choose_checks(self.checks, self.thorough or self.huge is not None)
        if self.huge is self.case:
            names = tuple(name for name in names if name in HUGE_CHECKS)
        try:
            opened = self.subject.open(self, names, result)
        except WorkerFault as fault:
            result.could_not_run = fault.outcome.status != "error" or fault.cannot_start
            yield _make_finding("open", fault.outcome)
            return
        yield from self._run_checks(opened, names)
        result.not_compared = tuple(opened.not_compared())
        result.outputs, result.values = opened.outputs, opened.values
        if self.worker.pid is not None and any(f.verdict == "differ" for f in result.findings):
            opened.explain(result)

    def _run_checks(self, opened: OpenedSubject, names: Sequence[str]) -> Iterator[Finding]:
        """Run the checks in order, and yield their findings (results). If the worker process ends,
        the remaining checks do not run."""
        starts, running = self.worker.starts, "open"
        for number, (name, check) in enumerate(opened.checks.items(), 1):
            if self.worker.starts != starts or self.worker.pid is None:
                fault = f"the worker process ended during the check {running}"
                yield Finding(name, faults=[fault], verdict="not-run")
                continue
            running = name
            self.stage(f"{name}, check {number} of {len(opened.checks)}")
            for finding in self._run_check(name, check):
                if name in names or finding.verdict not in PASSING:
                    yield finding

    def _run_check(self, name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        before = time.perf_counter()
        try:
            for finding in check():
                finding.seconds = time.perf_counter() - before
                before = time.perf_counter()
                yield finding.judge()
            return
        except WorkerFault as fault:
            failure = _make_finding(name, fault.outcome)
        except OracleFault as fault:
            failure = Finding(name, faults=[str(fault)], verdict=fault.verdict)
        except IllFormed as error:
            failure = Finding(name, faults=[str(error)]).judge()
        except CannotCheck:
            raise
        except Exception as error:
            failure = harness_fault(error, name)
        failure.seconds = time.perf_counter() - before
        yield failure


def _make_finding(check: str, outcome: Outcome) -> Finding:
    verdict: Verdict = "error" if outcome.status == "ok" else outcome.status
    return Finding(check, faults=[outcome.cause], verdict=verdict, traceback=failure_text(outcome))


# An ordinary cell checks the spec's program on a backend.

# An excerpt of a spec file has AROUND lines above and below the wrong line. A record has at most
# MOST traced values.
AROUND, MOST = 2, 60


def describe_divergence(
    judged: Sequence[TracedPart], first: TracedPart, place: str, spec: Spec
) -> Divergence:
    """Return the errors and tolerances of recorded values near the first wrong value, and an
    excerpt of the file with the wrong equation.

    ``judged`` has all compared values, and ``first`` is the first wrong value. ``place`` is the
    ``file:line`` of its equation, or an empty text.
    """
    worst: dict[str, Link] = {}
    steps = []
    for part in judged:
        error, allowed = part.error, part.allowed
        earlier = worst.get(part.name)
        if earlier is None or error / allowed > earlier.error / earlier.allowed:
            worst[part.name] = Link(value=part.name, error=float(error), allowed=float(allowed))
        if part.name == first.name and part.step is not None:
            steps.append((part.step, error, allowed))
    first_link = max(0, min([*worst].index(first.name) - MOST // 2, len(worst) - MOST))
    divergence = Divergence(
        first=first.name,
        links=tuple(worst.values())[first_link : first_link + MOST],
        steps=tuple(steps),
    )
    file, _, line = place.rpartition(":")
    lines = spec.document.lines if file == spec.document.file else spec.library.lines(file)
    if not lines or not line.isdecimal():
        return divergence
    number = int(line)
    start = max(1, number - AROUND)
    excerpt = {"file": file, "line": number, "start": start}
    return divergence.model_copy(
        update={**excerpt, "lines": tuple(lines[start - 1 : number + AROUND])}
    )


@dataclass(frozen=True)
class SpecOnBackend:
    """A spec's program on a backend, as opposed to a user's own model. ``repeat`` is the number of
    repetitions in the check ``soak``. ``dtypes`` are all dtypes of the command."""

    repeat: int = 0
    dtypes: tuple[str, ...] = ()

    def needs(self, case: Case) -> tuple[Program | UpdateRule | None, ...]:
        """Return the program for training, the program for inference, and the update rule."""
        return (case.training, case.inference, case.spec.update)

    def open(self, run: CellRun, names: Sequence[str], result: CellResult) -> OpenedSubject:
        """Open a session on the backend; see :meth:`Subject.open`."""
        remote, cell = Remote(run.worker, run.timeout, spent), run.cell
        context = Context(
            run.case,
            run.own,
            remote,
            cell.path,
            cell.dtype,
            cell.device,
            huge=run.huge,
            stage=run.stage,
            repeat=self.repeat,
            brief=cell.dtype == "float64" and self._runs_elsewhere("float32", run),
        )
        result.layers = context.open(run.case.spec.update)
        selected = [name for name in names if self._applies(name, run)]
        return OpenedSubject(
            {name: partial(CHECKS[name], context) for name in (PRIMITIVES, *selected)},
            partial(_explain, run, context),
            context.outputs,
            context.values,
        )

    def _applies(self, check: str, run: CellRun) -> bool:
        """Return whether a check runs in this cell's dtype.

        If a command has several dtypes, some checks run in only one of them. Checks that the user
        names run in every dtype that they support.
        """
        dtype = run.cell.dtype
        if check in FLOAT64_ONLY and dtype != "float64":
            return False
        if check in NOT_NARROW and narrow(dtype):
            return False
        only_dtype = IN_ONE.get(check, dtype)
        return only_dtype == dtype or not self._runs_elsewhere(only_dtype, run)

    def _runs_elsewhere(self, dtype: str, run: CellRun) -> bool:
        """Return whether another cell of the same command makes the same checks in ``dtype``."""
        if dtype == run.cell.dtype or run.checks != ("*",):
            return False
        return dtype in self.dtypes and dtype in (run.worker.hello or {}).get("dtypes", ())


def _explain(run: CellRun, context: Context, result: CellResult) -> None:
    result.location = _locate(run, context, result)
    try:
        # Run the other paths to find the code at fault.
        result.blame = blame(context, result)
    except (WorkerFault, OracleFault) as fault:
        result.blame = Blame(who="unknown", words=f"The other path could not be run: {fault}")
        # The worker may be broken, so close it.
        run.worker.close()


def _locate(run: CellRun, context: Context, result: CellResult) -> str:
    """Return a text about the first value of the forward pass that differs from the oracle. If the
    forward pass is right, the text is about gradients or updates."""
    case, material = run.case, run.case.material
    first = next((f for f in result.findings if f.verdict == "differ"), None)
    if first is not None and first.check == PRIMITIVES:
        return f"primitive: {first.faults[0]}"
    try:
        context.open(case.spec.update)
        context.remote.load(material)
        trace = context.remote.trace("training", material)
    except WorkerFault as fault:
        return f"the values could not be traced: {fault}"
    try:
        with within_limits():
            expectations = Expectations(case, material, run.cell.dtype)
            parts = expectations.judge(trace)
            wrong = next((part for part in parts if not part.agrees), None)
            if wrong is None:
                name, correct = find_wrong_result(result.findings), {p.name for p in parts}
                result.wrong_layers = find_makers(case.training, name, correct) if name else ()
                text, result.named_layers = describe_later_phases(result.findings, case.training)
                return text
            location = expectations.locate(wrong)
            correct = {p.name for p in parts if p.agrees} - {wrong.name}
            layers = find_makers(case.training, without_number(wrong.name), correct)
            result.wrong_layers = (location.layer,) if location.layer else layers
            result.right_if, result.place = location.right_if, location.place
            result.divergence = describe_divergence(parts, wrong, location.place, case.spec)
            return str(location)
    except OracleFault as fault:
        return f"the first difference could not be located: {fault}"
