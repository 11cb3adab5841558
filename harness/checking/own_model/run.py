"""A cell of a model of a user's own: the model is opened, given the spec's weights, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from harness.checking.own_model.asked import Against
from harness.checking.own_model.checks import CHECKS, ModelCheck, ModelContext
from harness.checking.own_model.told import located
from harness.checking.run_cell import CannotCheck, CellRun, OpenedSubject
from harness.errors import shorten
from harness.oracle.case import Case
from harness.oracle.patience import OracleFault, at_work, spent
from harness.program.serial import encode
from harness.results.cell import CellResult
from harness.results.findings import Finding
from harness.runtime.own_model.service import OwnModelService
from harness.worker.answers import Forms
from harness.worker.remote import Remote, WorkerFault

# Characters of the list of arrays that stay as the model has them.
KEPT = 200
FORMS = Forms(OwnModelService)


@dataclass(frozen=True)
class UsersModel:
    """A model of a user's, held against the spec."""

    against: Against

    def needs(self, _: Case) -> tuple[()]:
        """Nothing: the model does not run the spec's program."""
        return ()

    def open(self, run: CellRun, asked: Sequence[str], result: CellResult) -> OpenedSubject:
        """The model, at small sizes where it takes any, and else at the spec's own. See
        :class:`.run_cell.Subject`."""
        remote = Remote(run.worker, run.timeout, spent, FORMS)
        with self._users_errors():
            context = self._attached(run, remote, result)
        checks = {n: partial(self._made, CHECKS[n], context) for n in CHECKS if n in asked}
        return OpenedSubject(checks, partial(_explain, context), not_compared=context.not_compared)

    def _attached(self, run: CellRun, remote: Remote, result: CellResult) -> ModelContext:
        place, sizes, cell = self.against.place(), dict(run.own.training.sizes), run.cell
        free = remote.call("describe", **place, sizes=sizes)["sizes"]
        case = run.case if {*sizes} <= {*free} else run.own
        attached = remote.call(
            "attach",
            **place,
            training=encode(case.training),
            inference=encode(case.inference),
            dtype=cell.dtype,
            device=cell.device,
            maps=list(self.against.maps),
            takes=list(self.against.takes),
            returns=list(self.against.returns),
        )
        kept = {"kept": shorten(", ".join(attached["kept"]), KEPT)} if attached["kept"] else {}
        result.layers = {"model": attached["label"], **kept}
        return ModelContext(
            case,
            remote,
            cell.dtype,
            takes=tuple(attached["takes"]),
            differentiates=attached["differentiates"],
            trains=attached["trains"],
        )

    def _made(self, check: ModelCheck, context: ModelContext) -> Iterator[Finding]:
        with self._users_errors():
            yield from check(context)

    @contextmanager
    def _users_errors(self) -> Iterator[None]:
        """What is wrong with the model, or with how it was asked for, ends the run.

        Raises:
            CannotCheck: a call failed by a user's error.
        """
        try:
            yield
        except WorkerFault as fault:
            message = fault.users_error
            if message is None:
                raise
            about = "" if message.startswith(str(self.against)) else f"{self.against}: "
            raise CannotCheck(f"{about}{message}") from None


def _explain(context: ModelContext, result: CellResult) -> None:
    """Where the model parts from the spec."""
    try:
        with at_work():
            found = located(context, result.findings)
        result.location, result.wrong_layers = found.text, found.layers
        result.wrong_attribute = found.attribute
    except OracleFault as fault:
        result.location = f"no place could be found: {fault}"
