"""Running the checks of a user's own model with the spec's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial

from harness.checking.checks import FINDINGS
from harness.checking.own_model.against import Against
from harness.checking.own_model.check_table import CHECKS, left_out
from harness.checking.own_model.checks import ModelCheck, ModelContext
from harness.checking.own_model.explain import locate
from harness.checking.own_model.guesses import Programs
from harness.checking.run_cell import CannotCheck, CellRun, OpenedSubject
from harness.errors import shorten
from harness.oracle.case import Case
from harness.oracle.time_limit import OracleFault, spent, within_limits
from harness.program.serial import encode
from harness.results.cell import Cell, CellResult
from harness.results.findings import AGREEING, Finding
from harness.runtime.answers import AttachedModel
from harness.runtime.own_model.service import OwnModelService
from harness.runtime.precision import host_dtype
from harness.worker.answers import Forms
from harness.worker.remote import Remote, WorkerFault, missing_requirement
from harness.worker.worker import Worker

# The most characters of the text that lists arrays with values of the model instead of the spec.
KEPT = 200
FORMS = Forms(OwnModelService)


@dataclass(frozen=True)
class UsersModel:
    """A user's model as the subject of a cell."""

    against: Against

    def needs(self, _: Case) -> tuple[()]:
        """Return an empty tuple. A user's model needs no primitives, because it does not run the
        spec's program."""
        return ()

    def open(self, run: CellRun, names: Sequence[str], result: CellResult) -> OpenedSubject:
        """Open the model at small sizes, or at the spec's own sizes if the model does not accept
        small sizes. See :meth:`.run_cell.Subject.open`."""
        remote = Remote(run.worker, run.timeout, spent, FORMS)
        with self._catch_user_errors():
            context = self._attach(run, remote, result)
        chosen = {*names} - left_out(run.checks, run.cell.dtype)
        checks = {n: partial(self._run_check, CHECKS[n], context) for n in CHECKS if n in chosen}
        return OpenedSubject(
            checks, partial(self._explain, run, context), not_compared=context.not_compared
        )

    def check_names(
        self, worker: Worker, timeout: float, cell: Cell, small: Programs, own: Programs
    ) -> None:
        """Open the model only to report wrong names, e.g. in ``--map``, before the oracle runs.

        Args:
            worker: The worker that will run the cell.
            timeout: The limit of the call in seconds.
            cell: The cell.
            small: The spec's programs for training and inference, at small sizes.
            own: The same programs at the spec's own sizes.

        Raises:
            CannotCheck: a name or a rule is wrong, or the model cannot be opened.
        """
        if not worker.start().ok or missing_requirement(
            worker.hello or {}, cell.device, cell.dtype
        ):
            return
        with suppress(WorkerFault), self._catch_user_errors():
            self._call_attach(Remote(worker, timeout, spent, FORMS), cell, small, own)

    def _attach(self, run: CellRun, remote: Remote, result: CellResult) -> ModelContext:
        cell, (small, own) = run.cell, ((c.training, c.inference) for c in (run.case, run.own))
        attached, programs = self._call_attach(remote, cell, small, own)
        case = run.case if programs is small else run.own
        kept_arrays = (
            {"kept": shorten(", ".join(attached["kept"]), KEPT)} if attached["kept"] else {}
        )
        result.layers = {"model": attached["label"], **kept_arrays}
        return ModelContext(
            case,
            remote,
            cell.dtype,
            cell.path,
            takes=tuple(attached["takes"]),
            differentiates=attached["differentiates"],
            trains=attached["trains"],
        )

    def _call_attach(
        self, remote: Remote, cell: Cell, small: Programs, own: Programs
    ) -> tuple[AttachedModel, Programs]:
        """Open the model with the programs of the sizes that it accepts; return both."""
        place, sizes = self.against.place(), dict(own[0].sizes)
        free = remote.call("describe", **place, sizes=sizes)["sizes"]
        programs = small if {*sizes} <= {*free} else own
        attached: AttachedModel = remote.call(
            "attach",
            **place,
            training=encode(programs[0]),
            inference=encode(programs[1]),
            dtype=cell.dtype,
            device=cell.device,
            maps=list(self.against.maps),
            takes=list(self.against.takes),
            returns=list(self.against.returns),
            execution=cell.path,
        )
        return attached, programs

    def _run_check(self, check: ModelCheck, context: ModelContext) -> Iterator[Finding]:
        # If the model runs, but not on this path, the cell fails, and the other cells go on.
        with self._catch_user_errors() if context.path == "native" else nullcontext():
            yield from check(context)

    def _explain(self, run: CellRun, context: ModelContext, result: CellResult) -> None:
        findings: Sequence[Finding] = result.findings
        try:
            with within_limits():
                if context.path != "native":
                    context, findings = self._run_native(run, context, findings)
                if all(f.verdict in AGREEING for f in findings):
                    checks = ", ".join(dict.fromkeys(f.check for f in findings))
                    result.location = (
                        f"On the path native, the model agrees ({checks}), so the path "
                        f"{run.cell.path} changes the results"
                    )
                    return
                hint = locate(context, findings)
            result.location, result.wrong_layers = hint.text, hint.layers
            result.wrong_attribute = hint.attribute
        except OracleFault as fault:
            result.location = f"the first difference could not be located: {fault}"

    def _run_native(
        self, run: CellRun, context: ModelContext, findings: Sequence[Finding]
    ) -> tuple[ModelContext, list[Finding]]:
        """Run the checks that differ on the path native; return the context and the findings."""
        cell = replace(run.cell, path="native", dtype=host_dtype(run.cell.dtype))
        native = self._attach(replace(run, cell=cell), context.remote, CellResult(cell))
        wrong = [FINDINGS[f.check] for f in findings if f.verdict == "differ"]
        names = dict.fromkeys(name for name in wrong if name in CHECKS)
        return native, [finding.judge() for name in names for finding in CHECKS[name](native)]

    @contextmanager
    def _catch_user_errors(self) -> Iterator[None]:
        """Turn an error in the user's model or options into an error that ends the run.

        Raises:
            CannotCheck: a call failed because of the user's model or options.
        """
        try:
            yield
        except WorkerFault as fault:
            message = fault.users_error
            if message is None:
                raise
            about = "" if message.startswith(str(self.against)) else f"{self.against}: "
            raise CannotCheck(f"{about}{message}") from None
