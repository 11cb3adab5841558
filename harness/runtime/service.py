"""Serve the verbs of a worker: the few calls through which the parent drives a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError, closest
from harness.program.primitives import TABLE
from harness.program.serial import decoded
from harness.program.signature import group_of
from harness.runtime import promises
from harness.runtime.answers import (
    Counted,
    Gradients,
    Kept,
    Length,
    Opened,
    Paths,
    Probed,
    Stepped,
    Tensors,
    Traced,
)
from harness.runtime.backend import Backend
from harness.runtime.functions import COMPILED
from harness.runtime.interpreter import Table, perform
from harness.runtime.paths import DERIVED_PATHS
from harness.runtime.probe import Probe
from harness.runtime.promises import ContractError
from harness.runtime.session import Session, open_session
from harness.runtime.step_service import Payload, StepService


class SessionService(StepService):
    """The current session of one backend. Its verbs take and return plain data."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._session: Session | None = None
        self._probe, self._setting = Probe(), ("", "")

    @property
    def session(self) -> Session:
        """The current session.

        Raises:
            UsageError: none is open.
        """
        if self._session is None:
            raise UsageError("no session is open")
        return self._session

    def open(
        self,
        training: Any,
        inference: Any,
        rule: Any = None,
        path: str = "native",
        dtype: str = "float32",
        device: str = "cpu",
        quick: bool = False,
    ) -> Opened:
        """Start a session, in place of the last one, and return the path of each layer.

        The flags in the answer: whether the backend promises to keep denormals, whether its bits
        repeat, and whether the framework differentiates, in single passes and in whole steps.
        """
        self.backend.quick, self.backend.exact = quick, False
        self._setting = (dtype, device)
        self._session = open_session(self.backend, training, inference, rule, path, dtype, device)
        backend = self._session.backend
        return {
            "paths": self._session.paths(),
            "denormals": backend.denormals,
            "repeats": bool(backend.repeats()),
            "automatic": self._automatic(),
        }

    def _automatic(self) -> bool:
        session = self.session
        if session.path in DERIVED_PATHS:
            return False
        return session.automatic(session.plain("training", "loss")) is not None

    def use_rule(self, rule: Any) -> Paths:
        """Train with another optimizer; parameters must be loaded again."""
        self.session.use_rule(decoded(rule))
        return {"paths": self.session.paths()}

    def load(self, parameters: Payload, statistics: Payload) -> None:
        """Set all parameters and statistics; optimizer state is reset."""
        self.session.load(parameters, statistics)

    def read(self) -> Kept:
        """Return parameters, statistics and slots, by neutral names."""
        return self.session.read()

    def forward(
        self, phase: Any, inputs: Payload, state: Payload, targets: Payload | None = None
    ) -> Tensors:
        """Return results by name."""
        return self.session.forward(phase, inputs, state, targets)

    def gradients(
        self,
        phase: Any,
        inputs: Payload,
        state: Payload,
        targets: Payload,
        cotangents: Payload | None = None,
    ) -> Gradients:
        """Return ``results`` and ``gradients``, of the loss or along cotangents."""
        results, gradients = self.session.gradients(phase, inputs, state, targets, cotangents)
        return {"results": results, "gradients": gradients}

    def train(
        self, batches: Sequence[Payload], state: Payload
    ) -> Annotated[list[Stepped], Counted("batches")]:
        """Make one step for each batch (``inputs``, ``targets``, ``learning_rate``).

        The state is carried from step to step. Return for each step its results, and everything
        that training changes.
        """
        steps: list[Stepped] = []
        for batch in batches:
            results = self.session.step(
                batch["inputs"], state, batch["targets"], batch["learning_rate"]
            )
            state = group_of(results, "state.")
            steps.append({"results": results, **self.session.read()})
        return steps

    def primitives(self, batch: int, time: int) -> Probed:
        """Return the number of calls ``tried``, the ``faults`` as text and a ``traceback``."""
        sizes = {"batch": batch, "time": time}
        return self._probe.run(self.session, sizes, self._setting)

    def strided(
        self,
        parameters: Payload,
        statistics: Payload,
        inputs: Payload,
        state: Payload,
        targets: Payload,
    ) -> Annotated[list[Tensors], Length(3)]:
        """Return the results of three passes on unusual memory layouts.

        The first is an inference pass on arrays with gaps in memory and their axes reversed. The
        second is an inference pass on tensors that are transposed views, if the framework has
        views. The third is a training pass on arrays as in the first, with ``gradient.NAME``.
        """
        session = self.session
        session.load(_scattered(parameters), _scattered(statistics))
        arrays = session.forward("inference", _scattered(inputs), _scattered(state))
        variables, constants = session.arguments("inference", inputs, state, {})
        crossing = {f"input.{n}": a for n, a in inputs.items()}
        crossing |= {f"state.{n}": a for n, a in state.items()}
        views = {n: self._view(a) for n, a in crossing.items()}
        results = session.function("inference", "forward")(
            {n: views.get(n, t) for n, t in variables.items()},
            {n: views.get(n, t) for n, t in constants.items()},
        )
        batch = (_scattered(inputs), _scattered(state), _scattered(targets))
        trained, gradients = session.gradients("training", *batch)
        trained |= {f"gradient.{n}": g for n, g in gradients.items()}
        return [arrays, session.to_numpy(promises.named(results, COMPILED)), trained]

    def _view(self, array: Array) -> Any:
        """Return an array's tensor as a transposed view of the tensor of its transpose."""
        session, axes = self.session, tuple(reversed(range(array.ndim)))
        floats = array.dtype.kind == "f"
        made = session.float_tensor(array.T) if floats else session.backend.tensor(array.T.copy())
        return perform(session.backend.primitives, "permute_dims", [made], {"axes": axes})

    def trace(
        self,
        phase: Any,
        inputs: Payload,
        state: Payload,
        targets: Payload | None = None,
        instead: Sequence[Any] = (),
    ) -> list[Traced]:
        """Return every named value of a forward pass, as :meth:`.session.Session.trace` does."""
        # A backend's own session may not have the optional arguments.
        more: dict[str, Any] = {} if targets is None else {"targets": targets}
        if instead:
            more["instead"] = [tuple(entry) for entry in instead]
        return [list(entry) for entry in self.session.trace(phase, inputs, state, **more)]

    def aliasing(
        self, parameters: Payload, statistics: Payload, calls: Sequence[Payload]
    ) -> list[str]:
        """Return faults as text: arrays that share memory but must not; none if all is well. Each
        call holds ``inputs`` and ``state``; two different calls are needed."""
        faults: list[str] = []
        # Copies: the received arrays are kept for comparison.
        given = {n: np.array(a) for n, a in parameters.items()}
        own_calls = [
            {g: {n: np.array(a) for n, a in call[g].items()} for g in ("inputs", "state")}
            for call in calls
        ]
        self.session.load(given, {n: np.array(a) for n, a in statistics.items()})
        first = self.session.forward("inference", own_calls[0]["inputs"], own_calls[0]["state"])
        kept = {n: np.array(a) for n, a in first.items()}
        self.session.forward("inference", own_calls[1]["inputs"], own_calls[1]["state"])
        faults += _changed("output", kept, first, "by the next call")
        for own, call in zip(own_calls, calls, strict=True):
            for group in ("inputs", "state"):
                faults += _changed(group, call[group], own[group], "by a call")
        faults += _changed("parameter", parameters, given, "by a call")
        for array in given.values():
            array += 1.0
        again = self.session.forward("inference", own_calls[0]["inputs"], own_calls[0]["state"])
        faults += _changed("output", kept, again, "when the caller wrote to the arrays it loaded")
        return faults


def _scattered(arrays: Arrays) -> ArrayDict:
    """Return equal arrays with their axes reversed in memory, and gaps filled with ones."""
    found = {}
    for name, array in arrays.items():
        last, *others = reversed(array.shape) if array.ndim else (1,)
        room = np.ones((2 * last, *others), array.dtype)
        view = room.T[..., ::2]
        view[...] = array
        found[name] = view if array.ndim else np.array(array)
    return found


def _changed(what: str, before: Arrays, after: Arrays, when: str) -> list[str]:
    return [
        f"{what} {name} was changed {when}"
        for name, array in before.items()
        if not np.array_equal(np.asarray(array), np.asarray(after[name]), equal_nan=True)
    ]


def _misspelt(table: Table, missing: Sequence[str]) -> str:
    pairs = ((name, closest(name, missing)) for name in table if name not in TABLE)
    likely = [f"{name!r} may be meant for {near!r}" for name, near in pairs if near]
    return f"; {', '.join(likely)}" if likely else ""


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """Return the function that answers the calls to a worker.

    Raises:
        UsageError: the table is incomplete.
        ContractError: the object is not a backend, or has no name or no table.
    """
    promises.instance(backend, Backend, "harness_backend", "a harness.extend.Backend")
    if not isinstance(getattr(backend, "name", None), str):
        kind = type(backend).__name__
        raise ContractError(f"{kind}.name is not text; the name of its entry point is wanted")
    table = promises.table(backend.primitives)
    promises.instance(backend.fused, Mapping, "fused", "a dictionary of functions by name")
    missing = [primitive for primitive in TABLE if primitive not in table]
    if missing:
        raise UsageError(
            f"the table of backend {backend.name!r} lacks {', '.join(missing)}; it must hold all "
            f"{len(TABLE)} primitives of harness.program.primitives.TABLE"
            f"{_misspelt(table, missing)}"
        )
    verbs = SessionService(backend)

    def answer(verb: str, payload: Payload) -> Any:
        return getattr(verbs, verb)(**(payload or {}))

    return answer
