"""The calls with which the parent process controls a session (a model on one backend) in a worker.

The parent calls a method of :class:`SessionService` by its name, e.g. ``load`` or ``forward``.
"""

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
    EqualLength,
    Gradients,
    Length,
    ModelValues,
    OpenAnswer,
    Paths,
    ProbeAnswer,
    StepAnswer,
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
    """The service that runs a session (a model on one backend) in a worker. Its methods take and
    return arrays, numbers and texts."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._session: Session | None = None
        self._probe, self._setting = Probe(), ("", "")

    @property
    def session(self) -> Session:
        """The current session (a model on the backend).

        Raises:
            UsageError: no session is open.
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
        eager: bool = False,
        compiled_whole: bool = False,
    ) -> OpenAnswer:
        """Start a session for a model, which replaces the previous session. ``training`` and
        ``inference`` are the model's encoded programs, and ``rule`` is its optimizer. With
        ``eager``, the framework runs one operation after the other, and compiles no functions. With
        ``compiled_whole``, its compiler compiles whole passes, which then all have the same shapes.

        Return a dictionary. ``paths`` maps each layer to what runs it: the framework's own layer,
        e.g. ``torch.lstm``, or ``equations``. ``denormals`` is True if the backend promises to keep
        denormals, and ``repeats`` if its gradients have the same bits each time. ``automatic`` is
        True if the framework itself computes the gradients, for single passes and for whole
        training steps.
        """
        self.backend.quick, self.backend.exact = quick, False
        self._setting = (dtype, device)
        self._session = open_session(self.backend, training, inference, rule, path, dtype, device)
        self._session.eager, self._session.compiled_whole = eager, compiled_whole
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
        """Switch to another optimizer, given its encoded ``rule``; the caller must then load the
        parameters again. Return ``paths``, which maps each layer and the optimizer to what runs it.
        """
        self.session.use_rule(decoded(rule))
        return {"paths": self.session.paths()}

    def load(self, parameters: Payload, statistics: Payload) -> None:
        """Set all parameters and statistics, and reset the optimizer. In checks, freed memory is
        first filled, because a kernel may read memory that it has not written."""
        if self.backend.quick:
            fill_freed_memory()
        self.session.load(parameters, statistics)

    def read(self) -> ModelValues:
        """Return a dictionary with ``parameters``, ``statistics`` and ``slots`` (of the optimizer),
        each by the spec's names."""
        return self.session.read()

    def forward(
        self, phase: Any, inputs: Payload, state: Payload, targets: Payload | None = None
    ) -> Tensors:
        """Run the model's program for ``training`` or ``inference`` (``phase``); return a
        dictionary from name, e.g. ``output.y``, to result."""
        return self.session.forward(phase, inputs, state, targets)

    def gradients(
        self,
        phase: Any,
        inputs: Payload,
        state: Payload,
        targets: Payload,
        cotangents: Payload | None = None,
    ) -> Gradients:
        """Return a dictionary with two dictionaries: ``results``, and ``gradients`` by name of the
        variable, e.g. ``rnn.W`` or ``input.x``.

        They are gradients of the loss. With ``cotangents`` (an array for each result), they are
        gradients of the sum of results times cotangents.
        """
        results, gradients = self.session.gradients(phase, inputs, state, targets, cotangents)
        return {"results": results, "gradients": gradients}

    def forward_derivative(
        self,
        phase: Any,
        inputs: Payload,
        state: Payload,
        cotangents: Payload,
        directions: Payload,
    ) -> Tensors:
        """Return a dictionary with the array ``derivative``, of shape ``[]``: the derivative of the
        sum of results times ``cotangents`` along ``directions`` (an array for each variable, e.g.
        ``input.x``), computed in forward mode. The dictionary is empty if the framework has no
        forward mode."""
        derivative = self.session.forward_derivative(phase, inputs, state, cotangents, directions)
        return {} if derivative is None else {"derivative": derivative}

    def train(
        self, batches: Sequence[Payload], state: Payload
    ) -> Annotated[list[StepAnswer], EqualLength("batches")]:
        """Make one training step for each batch; a batch has ``inputs``, ``targets`` and
        ``learning_rate``.

        The first step starts from ``state``, and each later step from the state that the previous
        step returned. Return a dictionary for each step: its ``results``, and ``parameters``,
        ``statistics`` and ``slots`` after it.
        """
        steps: list[StepAnswer] = []
        for batch in batches:
            results = self.session.step(
                batch["inputs"], state, batch["targets"], batch["learning_rate"]
            )
            state = group_of(results, "state.")
            steps.append({"results": results, **self.session.read()})
        return steps

    def primitives(self, batch: int, time: int) -> ProbeAnswer:
        """Test each primitive of the backend by itself, at this batch size and sequence length; see
        :class:`.probe.Probe`.

        Return a dictionary with the number of calls (``tried``), the ``faults`` as text, and a
        ``traceback``.
        """
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
        """Run three computations on unusual memory layouts. Return the results of each as a
        dictionary by name, in this order:

        1. Inference on arrays with gaps in memory and reversed axes.
        2. Inference on tensors that are transposed views, if the framework has views.
        3. A training pass on the arrays of the first computation; its gradients are named
        ``gradient.NAME``.
        """
        session = self.session
        session.load(_with_gaps(parameters), _with_gaps(statistics))
        arrays = session.forward("inference", _with_gaps(inputs), _with_gaps(state))
        variables, constants = session.arguments("inference", inputs, state, {})
        crossing = {f"input.{n}": a for n, a in inputs.items()}
        crossing |= {f"state.{n}": a for n, a in state.items()}
        views = {n: self._transposed_view(a) for n, a in crossing.items()}
        results = session.function("inference", "forward")(
            {n: views.get(n, t) for n, t in variables.items()},
            {n: views.get(n, t) for n, t in constants.items()},
        )
        batch = (_with_gaps(inputs), _with_gaps(state), _with_gaps(targets))
        trained, gradients = session.gradients("training", *batch)
        trained |= {f"gradient.{n}": g for n, g in gradients.items()}
        return [arrays, session.to_numpy(promises.check_mapping(results, COMPILED)), trained]

    def _transposed_view(self, array: Array) -> Any:
        """Return a tensor that has the values of ``array``, and is a transposed view of another
        tensor."""
        session, axes = self.session, tuple(reversed(range(array.ndim)))
        floats = array.dtype.kind == "f"
        tensor = session.float_tensor(array.T) if floats else session.backend.tensor(array.T.copy())
        return perform(session.backend.primitives, "permute_dims", [tensor], {"axes": axes})

    def trace(
        self,
        phase: Any,
        inputs: Payload,
        state: Payload,
        targets: Payload | None = None,
        instead: Sequence[Any] = (),
    ) -> list[Traced]:
        """Run a forward pass, and return every named value as a list: name, time step (or None),
        array. See :meth:`.session.Session.trace` for the arguments."""
        # A backend's own kind of session may lack the optional arguments.
        more: dict[str, Any] = {} if targets is None else {"targets": targets}
        if instead:
            more["instead"] = [tuple(entry) for entry in instead]
        return [list(entry) for entry in self.session.trace(phase, inputs, state, **more)]

    def aliasing(
        self, parameters: Payload, statistics: Payload, calls: Sequence[Payload]
    ) -> list[str]:
        """Test whether the backend shares memory with arrays of the caller, or changes arrays that
        it should not change. Return the faults as text; the list is empty if there are none.

        ``calls`` are two different forward passes, each with ``inputs`` and ``state``.
        """
        faults: list[str] = []
        # Run on copies; the received arrays stay unchanged for the comparison.
        own_parameters = {n: np.array(a) for n, a in parameters.items()}
        own_calls = [
            {g: {n: np.array(a) for n, a in call[g].items()} for g in ("inputs", "state")}
            for call in calls
        ]
        self.session.load(own_parameters, {n: np.array(a) for n, a in statistics.items()})
        first = self.session.forward("inference", own_calls[0]["inputs"], own_calls[0]["state"])
        first_copy = {n: np.array(a) for n, a in first.items()}
        self.session.forward("inference", own_calls[1]["inputs"], own_calls[1]["state"])
        faults += _list_changes("output", first_copy, first, "by the next call")
        for own, call in zip(own_calls, calls, strict=True):
            for group in ("inputs", "state"):
                faults += _list_changes(group, call[group], own[group], "by a call")
        faults += _list_changes("parameter", parameters, own_parameters, "by a call")
        for array in own_parameters.values():
            array += 1.0
        again = self.session.forward("inference", own_calls[0]["inputs"], own_calls[0]["state"])
        faults += _list_changes(
            "output", first_copy, again, "when the caller changed the loaded arrays"
        )
        return faults


def fill_freed_memory() -> None:
    """Fill memory with large numbers and NaN, and free it. In float32 and float64, 0x7f bytes are a
    large number, and 0xff bytes are NaN."""
    blocks = [
        np.full(4 << n, byte, np.uint8) for n in range(2, 17) for byte in (0x7F, 0xFF, 0x7F, 0xFF)
    ]
    del blocks


def _with_gaps(arrays: Arrays) -> ArrayDict:
    """Return arrays with the same values, whose axes are in reverse order in memory, and whose
    entries have gaps between them. The gaps hold ones."""
    arrays_with_gaps = {}
    for name, array in arrays.items():
        last, *others = reversed(array.shape) if array.ndim else (1,)
        memory = np.ones((2 * last, *others), array.dtype)
        view = memory.T[..., ::2]
        view[...] = array
        arrays_with_gaps[name] = view if array.ndim else np.array(array)
    return arrays_with_gaps


def _list_changes(what: str, before: Arrays, after: Arrays, when: str) -> list[str]:
    return [
        f"{what} {name} was changed {when}"
        for name, array in before.items()
        if not np.array_equal(np.asarray(array), np.asarray(after[name]), equal_nan=True)
    ]


def _misspelling_hint(table: Table, missing: Sequence[str]) -> str:
    pairs = ((name, closest(name, missing)) for name in table if name not in TABLE)
    likely = [f"{name!r} may be a misspelling of {near!r}" for name, near in pairs if near]
    return f"; {', '.join(likely)}" if likely else ""


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """Return the function that answers the calls of a worker. It takes the name of a method of
    :class:`SessionService` and the method's arguments.

    Raises:
        UsageError: the table of primitives is incomplete.
        ContractError: the object is not a backend, or has no name or no table.
    """
    promises.check_type(backend, Backend, "harness_backend", "a harness.extend.Backend")
    if not isinstance(getattr(backend, "name", None), str):
        kind = type(backend).__name__
        raise ContractError(f"{kind}.name is not a string; expected the name of the entry point")
    table = promises.check_table(backend.primitives)
    promises.check_type(backend.fused, Mapping, "fused", "a dictionary of functions by name")
    missing = [primitive for primitive in TABLE if primitive not in table]
    if missing:
        raise UsageError(
            f"the table of backend {backend.name!r} lacks {', '.join(missing)}; it must hold all "
            f"{len(TABLE)} primitives of harness.program.primitives.TABLE"
            f"{_misspelling_hint(table, missing)}"
        )
    verbs = SessionService(backend)

    def answer(verb: str, payload: Payload) -> Any:
        return getattr(verbs, verb)(**(payload or {}))

    return answer
