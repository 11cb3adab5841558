"""The search for faults: cases are run in turn on all backends, and each failing case becomes a
fault."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checking.known_differences import Differences
from harness.checking.reproducer import Failure, Reproducer, write
from harness.errors import CouldNotRun, HarnessError
from harness.fuzz.cases import Draft
from harness.fuzz.compare import COMPILED, FORWARD_MODE, STRIDED, TRAINING, CaseRunner, ModePass
from harness.fuzz.record import CaseLine, Fault
from harness.fuzz.shrink import equation_of_result, shrink
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation
from harness.results.cell import CellResult
from harness.results.findings import Finding
from harness.upstream.bundle import write_script_and_issue
from harness.worker.remote import WorkerFault, hello_of

# The seconds in which a failing case is made smaller.
SHRINKING = 20.0
# A case whose functions include those of a fault that was found this often counts as this fault.
OFTEN = 3
# Seeds of values that are tried for each smaller case.
SEEDS = 6
# After so many cases, the process of a backend ends and the next case starts a new one, because
# frameworks keep all code that they compile in memory.
CASES_OF_PROCESS = 250
CRASH = "crash"
# Lengths below this number are short.
SHORT = 16
WHOLE = re.compile(r"\b\d+\b")


@dataclass(frozen=True)
class Failing:
    """A case that fails, and what is wrong as text. If the backend gave wrong results, also the
    failing pass and the results."""

    draft: Draft
    detail: str
    failure: Failure | None = None
    wrong: list[Deviation] = field(default_factory=list)


@dataclass
class FuzzSearch:
    """A search on one backend. ``faults`` maps the identity of each fault to the fault, and
    ``counts`` counts its cases."""

    runner: CaseRunner
    known: Differences
    reproducers: Path | None = None
    faults: dict[str, Fault] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self.runner.worker.launch.backend

    def start(self) -> None:
        """Start the backend if it does not run.

        Raises:
            CouldNotRun: the backend does not start.
        """
        try:
            hello_of(self.runner.worker)
        except WorkerFault as fault:
            raise CouldNotRun(f"{self.backend}: {fault}", fault.traceback) from None

    def run(self, draft: Draft, case: Case) -> CaseLine:
        """Run a case, and return its outcome.

        Raises:
            CouldNotRun: the backend has ended, and does not start again.
        """
        self.start()
        line = CaseLine(
            number=draft.number,
            backend=self.backend,
            outcome="agree",
            functions=draft.functions,
            dtype=draft.dtype,
            values=draft.values,
        )
        if draft.number % CASES_OF_PROCESS == CASES_OF_PROCESS - 1:
            self.runner.worker.close()
        if self.runner.lacks(draft, case):
            return line.model_copy(update={"outcome": "unsupported"})
        try:
            identities = dict.fromkeys(self._examine(draft, case))
        except WorkerFault:  # a compiler refuses the case
            return line.model_copy(update={"outcome": "unsupported"})
        if identities:
            return line.model_copy(update={"outcome": "differ", "faults": tuple(identities)})
        return line

    def _examine(self, draft: Draft, case: Case) -> Iterator[str]:
        """Yield the identities of the faults of a case. Each call that differs is a failing case of
        its own."""
        seen: set[str] = set()
        for check, mode, wrong in _list_failures(self.runner, draft, case):
            equations = (equation_of_result(draft.model, name) for name in wrong)
            parts = dict.fromkeys(number for number in equations if number is not None)
            if check not in (TRAINING, CRASH):
                draft = replace(draft, optimizer="")
            for smaller in [draft.only(number) for number in parts] or [draft]:
                if smaller.text not in seen:
                    seen.add(smaller.text)
                    yield self._attribute(draft, smaller, check, mode, "; ".join(wrong.values()))

    def _attribute(self, draft: Draft, smaller: Draft, check: str, mode: str, detail: str) -> str:
        """Return the identity of the fault of a failing case; add the fault if it is new.
        ``smaller`` is the part of the case that differs, and ``detail`` what differs."""
        functions = set(smaller.functions)
        for identity, fault in self.faults.items():
            same = (fault.check, fault.values, fault.dtype) == (check, draft.values, draft.dtype)
            if same and self.counts[identity] >= OFTEN and functions.issuperset(fault.functions):
                self.counts[identity] += 1
                return identity

        def rerun(candidate: Draft) -> Draft | None:
            found = self._rerun(candidate, check, mode)
            return None if found is None else found.draft

        smallest = shrink(rerun(smaller) or draft, rerun, SHRINKING)
        fault = self._make_fault(smallest, check, mode, f"only sometimes: {detail}")
        self.counts[fault.identity] += 1
        if fault.identity not in self.faults:
            self.faults[fault.identity] = fault
        return fault.identity

    def _rerun(self, draft: Draft, check: str, mode: str) -> Failing | None:
        """Run one pass of a case with several seeds. Return the first case that fails, if any."""
        for seed in range(draft.seed, draft.seed + SEEDS):
            seeded = replace(draft, seed=seed)
            try:
                case = seeded.case()
                for failure, wrong in self.runner.failures(seeded, case, (check, mode)):
                    return Failing(seeded, "; ".join(map(str, wrong)), failure, wrong)
            except WorkerFault as fault:
                if check == CRASH:
                    return Failing(seeded, str(fault))
            except (HarnessError, ValueError):
                return None  # the smaller case is not valid
        return None

    def _make_fault(self, draft: Draft, check: str, mode: str, detail: str) -> Fault:
        """Return the fault of a case. ``detail`` says what differs if the case does not fail
        again."""
        failing = self._rerun(draft, check, mode) or Failing(draft, detail)
        longest = max(draft.batch, draft.time, *map(int, WHOLE.findall(draft.declarations)), 1)
        fault = Fault(
            backend=self.backend,
            version=self.runner.worker.versions,
            functions=draft.functions,
            values=draft.values,
            dtype=draft.dtype,
            check=check,
            mode=mode,
            lengths="any" if longest == 1 else "short" if longest < SHORT else "long",
            detail=failing.detail,
            model=draft.text,
            batch=draft.batch,
            time=draft.time,
            number=draft.number,
        )
        failure = failing.failure
        if failure is None or fault.identity in self.faults:
            return fault
        finding = Finding(check, failing.wrong).judge()
        cell = replace(failure.cell, spec=f"fuzz/{'-'.join(fault.functions)}")
        result = CellResult(cell, [finding], self.runner.layers, version=fault.version)
        result.wrong_layers = tuple(self.runner.layers)
        self.known.apply(result, finding, failure.program)
        if finding.verdict == "known-difference":
            return fault.model_copy(update={"known": finding.excuse})
        # Reproducers contain single passes in reverse mode, on contiguous arrays and on paths
        # without a compiler.
        in_reproducers = check != TRAINING and mode not in (FORWARD_MODE, STRIDED)
        single = in_reproducers and not self.runner.compiles
        if self.reproducers is not None and single:
            folder = self._write_reproducer(replace(failure, cell=cell), fault, result)
            return fault.model_copy(update={"folder": str(folder)})
        return fault

    def _write_reproducer(self, failure: Failure, fault: Fault, result: CellResult) -> Path:
        assert self.reproducers is not None
        name = re.sub(r"\W+", "-", fault.identity)[:100].strip("-")
        folder = self.reproducers / f"{name}-{fault.number}"
        programs = (failure.training, failure.inference)
        write(folder, Reproducer(failure.cell, *programs, failure.run, failure.run_oracle()))
        write_script_and_issue(self.runner.worker.launch, folder, result)
        return folder


def _list_failures(
    runner: CaseRunner, draft: Draft, case: Case
) -> list[tuple[str, str, dict[str, str]]]:
    """Return the check, the way to run, and the wrong results by name of each failing pass.

    Raises:
        WorkerFault: the backend refuses a pass, and all passes before it agree.
    """
    failures = []
    try:
        for failure, wrong in runner.failures(draft, case):
            assert isinstance(failure.run, ModePass)
            run = failure.run
            failures.append((run.check, run.mode, {d.name: str(d) for d in wrong}))
    except WorkerFault as fault:
        if fault.users_error is None:
            failures.append((CRASH, COMPILED, {"": str(fault)}))
        elif not failures:
            raise
    return failures


def numbers(cases: int, minutes: float) -> Iterator[int]:
    """Yield the numbers of the cases, until there are enough ``cases`` or the time is over."""
    end = time.monotonic() + 60 * minutes
    number = 0
    while time.monotonic() < end and (not cases or number < cases):
        yield number
        number += 1
