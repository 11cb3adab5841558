"""A cell of a spec on a backend: its session is opened, and where it differs, it is said where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from harness.checking.blame import blame, unheard
from harness.checking.checks import CHECKS, FLOAT64_ONLY, IN_ONE, NOT_NARROW, Context
from harness.checking.divergence import divergence
from harness.checking.first_difference import (
    Expectations,
    later_location,
    makers,
    wrong_result,
)
from harness.checking.run_cell import CellRun, OpenedSubject
from harness.oracle.case import Case
from harness.oracle.patience import OracleFault, at_work, spent
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.results.cell import CellResult
from harness.runtime.precision import narrow
from harness.runtime.traces import undistinguished
from harness.worker.remote import Remote, WorkerFault

# The check of what every primitive gives: made of every cell, whatever else is asked for, and
# shown where it fails.
PRIMITIVES = "primitives"


@dataclass(frozen=True)
class SpecOnBackend:
    """A spec's program as a backend runs it. ``repeat`` is how often a soak repeats the run of
    values; ``dtypes`` are those that the same spec is checked in."""

    repeat: int = 0
    dtypes: tuple[str, ...] = ()

    def needs(self, case: Case) -> tuple[Program | UpdateRule | None, ...]:
        """The program in both phases, and the update."""
        return (case.training, case.inference, case.spec.update)

    def open(self, run: CellRun, asked: Sequence[str], result: CellResult) -> OpenedSubject:
        """A session of the backend. See :class:`.run_cell.Subject`."""
        remote, cell = Remote(run.worker, run.timeout, spent), run.cell
        result.layers = _open(run, remote)
        context = Context(
            run.case,
            run.own,
            remote,
            cell.path,
            cell.dtype,
            cell.device,
            repeat=self.repeat,
            brief=cell.dtype == "float64" and self._elsewhere("float32", run),
        )
        wanted = [name for name in asked if self._is_for(name, run)]
        return OpenedSubject(
            {name: partial(CHECKS[name], context) for name in (PRIMITIVES, *wanted)},
            partial(_explain, run, context),
            context.outputs,
            context.values,
        )

    def _is_for(self, check: str, run: CellRun) -> bool:
        """Whether a check is made in a dtype. One that another cell makes is not made again, unless
        it is asked for by name."""
        dtype = run.cell.dtype
        if check in FLOAT64_ONLY and dtype != "float64":
            return False
        if check in NOT_NARROW and narrow(dtype):
            return False
        enough = IN_ONE.get(check, dtype)
        return enough == dtype or not self._elsewhere(enough, run)

    def _elsewhere(self, dtype: str, run: CellRun) -> bool:
        """Whether another cell of the run makes all checks in that dtype."""
        if dtype == run.cell.dtype or run.checks != ("*",):
            return False
        return dtype in self.dtypes and dtype in (run.worker.hello or {}).get("dtypes", ())


def _open(run: CellRun, remote: Remote) -> dict[str, str]:
    case, cell = run.case, run.cell
    return remote.open(
        case.training, case.inference, case.spec.update, cell.path, cell.dtype, cell.device
    )


def _explain(run: CellRun, context: Context, result: CellResult) -> None:
    result.location = _location(run, context.remote, result)
    try:
        # Run the other paths, to say who is at fault.
        blame(context, result)
    except (WorkerFault, OracleFault) as fault:
        result.blame = unheard(fault)
        # As after a check in which something was raised.
        run.worker.close()


def _location(run: CellRun, remote: Remote, result: CellResult) -> str:
    """Where the forward pass first parts from the oracle; if it does not, which phase does."""
    case, material = run.case, run.case.material
    first = next((f for f in result.findings if f.verdict == "differ"), None)
    if first is not None and first.check == PRIMITIVES:
        return f"primitive: {first.faults[0]}"
    try:
        _open(run, remote)
        remote.load(material)
        trace = remote.trace("training", material)
    except WorkerFault as fault:
        return f"no trace could be had: {fault}"
    try:
        with at_work():
            expectations = Expectations(case, material, run.cell.dtype)
            judged = expectations.judged(trace)
            wrong = next(((p, most) for p, most in judged if not p.within(most)), None)
            if wrong is None:
                name, right = wrong_result(result.findings), {p.name for p, _ in judged}
                result.wrong_layers = makers(case.training, name, right) if name else ()
                return later_location(result.findings, case.training)
            location = expectations.located(*wrong)
            right = {p.name for p, most in judged if p.within(most)} - {wrong[0].name}
            made = makers(case.training, undistinguished(location.value), right)
            result.wrong_layers = (location.layer,) if location.layer else made
            result.right_if = location.right_if
            result.divergence = divergence(judged, wrong[0], location.place, case.spec)
            return str(location)
    except OracleFault as fault:
        return f"no place could be found: {fault}"
