"""Run of a case on a backend, and comparison with the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from harness.checking.checks.context import select_names
from harness.checking.reproducer import ALONG, INFERENCE, Failure, Pass
from harness.fuzz.cases import ORDINARY, SPECIAL, Draft
from harness.oracle.case import Case
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit
from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell
from harness.worker.remote import Remote, Tensors, missing_requirement
from harness.worker.worker import Worker

# Ways to run a pass: compiled, if the framework compiles, or one operation after the other, or on
# arrays with gaps, or on transposed views.
COMPILED, EAGER, GAPS, VIEWS = "compiled", "eager", "gaps", "views"
CHECKS = (INFERENCE, ALONG, "gradients", "nan")


@dataclass(frozen=True)
class ModePass(Pass):
    """A pass that runs in one of several ways (``mode``)."""

    mode: str = COMPILED

    def run(self, remote: Remote) -> Tensors:
        """Run the pass, and return its results by name."""
        arguments = self.material
        if self.mode == EAGER:
            remote.load(arguments)
            values = remote.trace("inference", arguments)
            return {f"output.{name}": array for name, step, array in values if step is None}
        if self.mode in (GAPS, VIEWS):
            groups = ("parameters", "statistics", "inputs", "state", "targets")
            runs = remote.call("strided", **{group: getattr(arguments, group) for group in groups})
            results: Tensors = runs[(GAPS, VIEWS).index(self.mode)]
            return results
        return super().run(remote)


@dataclass
class CaseRunner:
    """A backend on one device and path, with a time limit of ``seconds`` for each case. ``layers``
    maps each layer of the last case to the code that ran it."""

    worker: Worker
    device: str
    path: str
    seconds: float
    layers: Mapping[str, str] = field(default_factory=dict)

    def cell(self, draft: Draft) -> Cell:
        """Return the cell in which a case runs."""
        return Cell(draft.name, self.worker.launch.backend, self.device, draft.dtype, self.path)

    def lacks(self, draft: Draft, case: Case) -> str:
        """Return a message if the backend does not offer something that the case needs."""
        programs = (case.training, case.inference)
        return missing_requirement(self.worker.hello or {}, self.device, draft.dtype, programs)

    def failures(
        self, draft: Draft, case: Case, only: tuple[str, str] | None = None
    ) -> Iterator[tuple[Failure, list[Deviation]]]:
        """Run a case in every way, and yield each pass that differs, with its wrong results.
        ``only`` names the check and the mode of the only pass to run.

        Raises:
            WorkerFault: the backend raised an error, crashed, or took too long.
        """
        remote = Remote(self.worker, self.seconds)
        cell = self.cell(draft)
        programs = (case.training, case.inference)
        self.layers = remote.open(*programs, None, cell.path, cell.dtype, cell.device)
        if draft.values == "denormal" and not remote.denormals:
            return
        for run in _passes(draft, case):
            if only is not None and only[0] in CHECKS and only != (run.check, run.mode):
                continue
            wrong = self._compare(remote, run, case, cell.dtype)
            if wrong:
                yield Failure(cell, *programs, run), wrong

    def _compare(self, remote: Remote, run: ModePass, case: Case, dtype: str) -> list[Deviation]:
        """Run a pass, and return its wrong results."""
        try:
            with with_time_limit(TimeLimit(self.seconds)), np.errstate(all="ignore"):
                expected = run.expected(case).of_finite_gradients()
                expected.noise(dtype)
        except OracleFault:  # the oracle needs more time than the backend may use
            return []
        results = run.run(remote)
        if run.mode == EAGER:  # a value with two names has only the first
            expected = select_names(expected, results)
        return [d for d in expected.deviations(results, dtype) if not d.agrees]


def _passes(draft: Draft, case: Case) -> Iterator[ModePass]:
    check = "nan" if draft.values == SPECIAL else INFERENCE
    forward = ModePass(check, "inference", case.material)
    yield forward
    if draft.kind == "calls" and draft.number % 3 == 0:
        yield replace(forward, mode=EAGER)
    if draft.values != ORDINARY:
        return
    along = case.cotangents if draft.kind == "calls" else None
    yield ModePass(ALONG if along else "gradients", "training", case.material, along)
    if draft.number % 4 == 0:
        yield replace(forward, mode=GAPS)
        yield replace(forward, mode=VIEWS)
