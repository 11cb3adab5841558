"""A cell of a model of a user's own: the model is opened, given the spec's weights, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from harness.check.cell import CellResult
from harness.check.checks import Check
from harness.check.checks.context import Context
from harness.check.own_model.asked import Against
from harness.check.own_model.checks import CHECKS, ModelContext
from harness.check.own_model.told import located
from harness.check.run_cell import CannotCheck, CellRun
from harness.errors import shorten
from harness.oracle.patience import OracleFault, at_work, spent
from harness.program.ir import Program, UpdateRule
from harness.program.serial import encode
from harness.worker.model_answers import OWN_MODEL
from harness.worker.remote import Remote, WorkerFault

# Characters of the list of arrays that stay as the model has them.
KEPT = 200


class ModelRemote(Remote):
    """Drives a worker that has a model of a user's. What is wrong with the model, or with how it
    was asked for, ends the run."""

    forms = OWN_MODEL

    def __init__(self, run: ModelRun) -> None:
        super().__init__(run.worker, run.timeout, spent)
        self.against = run.against

    def call(self, verb: str, **payload: Any) -> Any:
        """As of :class:`Remote`; :class:`.run_cell.CannotCheck` for a user's error."""
        try:
            return super().call(verb, **payload)
        except WorkerFault as fault:
            kind, _, message = fault.outcome.cause.partition(": ")
            if kind == "UsageError":
                about = "" if message.startswith(str(self.against)) else f"{self.against}: "
                raise CannotCheck(f"{about}{message}") from None
            raise


@dataclass(frozen=True, kw_only=True)
class ModelRun(CellRun):
    """As :class:`CellRun`, of a model of a user's."""

    against: Against

    def needs(self) -> tuple[Program | UpdateRule | None, ...]:
        """Nothing: the model does not run the spec's program."""
        return ()

    def opened(self, remote: Remote, result: CellResult) -> Context:
        """The model, at small sizes where it takes any, and else at the spec's own."""
        own = ModelRemote(self)
        place = self.against.place()
        free = own.call("describe", **place, sizes=dict(self.own.training.sizes))["sizes"]
        case = self.case if set(self.own.training.sizes) <= {*free} else self.own
        attached = own.call(
            "attach",
            **place,
            training=encode(case.training),
            inference=encode(case.inference),
            dtype=self.cell.dtype,
            device=self.cell.device,
            maps=list(self.against.maps),
            takes=list(self.against.takes),
            returns=list(self.against.returns),
        )
        kept = {"kept": shorten(", ".join(attached["kept"]), KEPT)} if attached["kept"] else {}
        result.layers = {"model": attached["label"], **kept}
        return ModelContext(
            case,
            self.own,
            own,
            self.cell.path,
            self.cell.dtype,
            self.cell.device,
            takes=tuple(attached["takes"]),
            differentiates=attached["differentiates"],
            trains=attached["trains"],
        )

    def chosen(self, asked: Sequence[str]) -> dict[str, Check]:
        """The checks of models, of those asked for."""
        return {name: cast(Check, CHECKS[name]) for name in CHECKS if name in asked}

    def explain(self, context: Context, result: CellResult) -> None:
        """Where the model parts from the spec."""
        assert isinstance(context, ModelContext)
        try:
            with at_work():
                result.location = located(context, result.findings)
        except OracleFault as fault:
            result.location = f"no place could be found: {fault}"
