"""A session: one model on one backend, on one path, in one dtype. Runs inside the worker.

Tensors are passed by name. Parameters have the framework's packed names (``rnn/kernel``) or the
spec's names (``rnn.W``). Other arguments are ``input.NAME``, ``target.NAME``, ``state.NAME``,
``statistics.NAME`` and ``cotangent.NAME``. Results are ``output.NAME``, ``state.NAME``,
``statistics.NAME``, ``metric.NAME`` and ``loss``. Arrays have the shapes that the program declares
(``[batch, time]``). Sessions copy their arguments, integers as int64. Returned arrays belong to the
caller. For the dtypes of floats see :mod:`.precision`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.program.ir import Phase, Program, walk_nodes
from harness.program.serial import decoded
from harness.program.signature import (
    Mode,
    batch_ports,
    call_key,
    check_arrays,
    check_batch,
    check_entries,
    check_names,
    index_names,
    port_shapes,
    without_noise,
)
from harness.program.updates import UpdateRule
from harness.runtime import promises, updates
from harness.runtime.answers import WHOLE, ModelValues
from harness.runtime.backend import Backend
from harness.runtime.functions import COMPILED, Functions
from harness.runtime.native import Function, Tensors
from harness.runtime.paths import ExecutionPath
from harness.runtime.precision import host_dtype
from harness.runtime.updates import (
    RATE,
    STEP,
    Update,
    claimed,
    initial_slots,
    steps_made,
    without_clipping,
)

# The suffix that distinguishes values of the same name (``#2``).
_NUMBER = re.compile(r"#\d+$")
# A named value: its name, its time step (None outside of loops), and the array.
Named = tuple[str, int | None, Array]


def distinct_names(program: Program) -> dict[int, str]:
    """Return a dictionary from each value of a program to its name. If several values have the same
    name, the later ones get a number (``loss#2``).

    For example, a loss may be called twice, or an LSTM's outputs and last state may have one name.
    Values inside loops are numbered separately, because they have a time step. The numbers follow
    the order of the program. A framework's layer may compute the same values in another order.
    """
    looped = {
        output
        for node in walk_nodes(program.nodes)
        if node.op == "scan"
        for inner in walk_nodes(node.block.nodes)
        for output in inner.outputs
    }
    names, seen = {}, Counter[tuple[str, bool]]()
    for value, name in sorted(program.names.items()):
        key = (name, value in looped)
        seen[key] += 1
        names[value] = name if seen[key] == 1 else f"{name}#{seen[key]}"
    return names


def without_number(name: str) -> str:
    """Return a name from :func:`distinct_names` without its number, e.g. ``loss`` for
    ``loss#2``."""
    return _NUMBER.sub("", name)


def value_places(program: Program) -> dict[str, str]:
    """Return a dictionary from the name of each value to the ``file:line`` of the equation that
    computes it."""
    nodes = list(walk_nodes(program.nodes))
    # Calls and loops come last, because their results were made by the nodes inside.
    nodes.sort(key=lambda node: node.body is not None)
    places: dict[str, str] = {}
    for node in nodes:
        for output in node.outputs:
            if output in program.names:
                places.setdefault(program.names[output], node.place)
    return places


@dataclass
class Tracing:
    """A recorder of the named values of a run; the list ``values`` has them as tuples (name, time
    step, array).

    ``instead`` has tuples of the same kind: their arrays replace computed values. The function
    ``tensor`` converts an array to a tensor. The function ``array`` converts a tensor to an array;
    its second argument is the tensor's name for messages.
    """

    program: Program
    instead: Sequence[Named]
    tensor: Callable[[Array], Any]
    array: Callable[[Any, str], Array]
    values: list[Named] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = distinct_names(self.program)
        self._others = {(name, time): array for name, time, array in self.instead}

    def watch(self, value: int, tensor: Any, time: int | None) -> Any:
        """Record ``tensor``, the value with the number ``value``, if it has a name. Return the
        tensor with which the run continues: the same, or its replacement."""
        name = self._names.get(value)
        if name is None:
            return None
        other = self._others.get((name, time))
        made = tensor if other is None else self.tensor(other)
        self.values.append((name, time, self.array(made, name)))
        return made


UPDATED = ("update()", "the next state and the next variables")


class Session(Functions):
    """A model on one backend, with its current parameters, statistics and optimizer slots. The base
    class :class:`~harness.runtime.functions.Functions` provides the functions that compute."""

    def __init__(
        self,
        backend: Backend,
        training: Program,
        inference: Program,
        *,
        path: ExecutionPath = "native",
        dtype: str = "float32",
        rule: UpdateRule | None = None,
    ) -> None:
        super().__init__(backend, training, inference, path, dtype)
        self.variables: Tensors = {}
        self.statistics: Tensors = {}
        self.slots: dict[str, Tensors] = {}
        self.steps = 0
        self.scaling: Tensors = {}
        self.use_rule(rule)

    def use_rule(self, rule: UpdateRule | None, claim: bool = True) -> None:
        """Use another optimizer. It takes effect at the next :meth:`load`, which makes the
        optimizer's slots.

        With ``claim=False``, the optimizer's equations run even if the framework has the same
        optimizer. Raise :class:`.promises.ContractError` if the backend returns an invalid
        optimizer.
        """
        # In float16 a whole step may have to be skipped.
        claim = claim and self.claims and not self.scales
        self.rule = rule
        self.optimizer = claimed(self.backend, rule, self.layout) if rule and claim else None
        arguments = (self.layout, self.backend.primitives, self.interpreter)
        self._update = (
            None if rule is None else Update(without_clipping(rule, self.optimizer), *arguments)
        )
        self._compiled.pop("update", None)

    def paths(self) -> dict[str, str]:
        """Return a dictionary from each layer, each loss and the ``optimizer`` to what runs it.

        This is the label of the framework's own implementation (e.g. ``torch.lstm``), or
        ``equations``.
        """
        natives = self.natives["training"]
        keys = map(call_key, self.programs["training"].calls)
        paths = {key: natives[key].label if key in natives else "equations" for key in keys}
        if self.rule is not None:
            paths["optimizer"] = self.optimizer.label if self.optimizer else "equations"
        return paths

    def trained(self) -> Tensors:
        """Return the variables that are trained. Their names are those of the framework's packed
        tensors, e.g. ``rnn/kernel``."""
        return {n: v for n, v in self.variables.items() if n not in self.layout.frozen}

    def neutral(self, tensors: Tensors) -> ArrayDict:
        """Convert packed tensors (which may hold several parameters) to arrays of the spec's
        parameters. Parameters whose tensor is missing are skipped."""
        return self.layout.unpack(self.to_numpy(tensors))

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        """Set the spec's parameters and statistics, and reset the optimizer.

        Raise :class:`UsageError` if an array is missing, unknown or of another shape.
        """
        program = self.programs["training"]
        check_arrays("parameter", port_shapes(program, program.parameters), parameters)
        check_arrays("statistic", port_shapes(program, program.statistics), statistics)
        for port in program.statistics:
            check_entries(program, port, f"constant {port.name}", statistics[port.name], {})
        self.forget()
        self.variables = self._tensors(self.layout.pack(parameters))
        whole = index_names(program)
        self.statistics = {
            n: self.backend.tensor(np.array(a, WHOLE["index"]))
            if n in whole
            else self.float_tensor(a)
            for n, a in statistics.items()
        }
        self.steps, self.scaling = 0, updates.initial_scaling(self.scalar) if self.scales else {}
        if self.rule is not None and self.optimizer is None:
            starts = self.rule_update().packed(initial_slots(self.rule, parameters))
            self.slots = {slot: self._tensors(a) for slot, a in starts.items()}

    @cached_property
    def optimizer_state(self) -> Any:
        """The state of the framework's own optimizer.

        It is created when it is first needed, because most sessions make no training steps.
        """
        assert self.optimizer is not None
        return self.optimizer.start(self.trained())

    def _tensors(self, arrays: Arrays) -> Tensors:
        return {n: self.float_tensor(a) for n, a in arrays.items()}

    def slot(self, name: str, tensors: Tensors) -> ArrayDict:
        """Convert ``tensors``, the tensors of the optimizer slot ``name``, to arrays, one per
        parameter of the spec."""
        return self.rule_update().unpacked(name, self.to_numpy(tensors))

    def forget(self) -> None:
        """Drop all tensors that :meth:`load` and later steps have made, to free their memory."""
        self.variables, self.statistics, self.slots = {}, {}, {}
        vars(self).pop("optimizer_state", None)

    def load_slots(self, slots: Mapping[str, Arrays], steps: int) -> None:
        """Set the optimizer slots and the number of ``steps`` made, so that the optimizer's
        equations continue from there. This is not possible for a framework's own optimizer.

        ``slots`` maps a slot (e.g. ``m``) to an array for each parameter of the spec. Raise
        :class:`UsageError` if a slot is unknown or missing.
        """
        assert self.rule is not None
        assert self.optimizer is None
        check_names("slot", self.slots, slots)
        packed = self.rule_update().packed(slots)
        self.slots |= {slot: self._tensors(arrays) for slot, arrays in packed.items()}
        self.steps = steps

    def read(self) -> ModelValues:
        """Return a dictionary with ``parameters``, ``statistics`` and ``slots`` (of the optimizer),
        each by the spec's names."""
        slots: Mapping[str, Tensors] = self.slots
        if self.optimizer is not None:
            slots = promises.check_mapping(self.optimizer.slots(self.optimizer_state), "slots()")
        return {
            "parameters": self.neutral(self.variables),
            "statistics": self.to_numpy(self.statistics),
            "slots": {slot: self.slot(slot, tensors) for slot, tensors in slots.items()},
        }

    def forward(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> ArrayDict:
        """Run the model's program for training or inference (``phase``). Return outputs, new state
        and new statistics by name; with targets, also the loss and metrics.

        Raise :class:`UsageError` if an array is missing, unknown or of a wrong shape.
        """
        mode: Mode = "forward" if targets is None else "loss"
        results = self.function(phase, mode)(*self.arguments(phase, inputs, state, targets or {}))
        return self.to_numpy(promises.check_mapping(results, COMPILED))

    def gradients(
        self,
        phase: Phase,
        inputs: Arrays,
        state: Arrays,
        targets: Arrays,
        cotangents: Arrays | None = None,
    ) -> tuple[ArrayDict, ArrayDict]:
        """Return two dictionaries: the results, and the gradients. A name of a gradient is a
        parameter of the spec, ``input.NAME`` or ``state.NAME``.

        They are gradients of the loss. With ``cotangents`` (an array for each result, by name),
        they are gradients of the sum of results times cotangents. Raise :class:`UsageError` as
        :meth:`arguments` does, and if a framework's layer has no gradient.
        """
        variables, constants = self.arguments(phase, inputs, state, targets)
        mode: Mode = "loss" if cotangents is None else "cotangents"
        for name, array in (cotangents or {}).items():
            constants[f"cotangent.{name}"] = self.float_tensor(array)
        results, gradients = self._run_gradients(phase, mode, variables, constants)
        arrays = self.to_numpy(gradients)
        others = {n: a for n, a in arrays.items() if n not in self.variables}
        return self.to_numpy(results), self.layout.unpack(arrays) | others

    def forward_derivative(
        self, phase: Phase, inputs: Arrays, state: Arrays, cotangents: Arrays, directions: Arrays
    ) -> Array | None:
        """Return the derivative, of shape ``[]``, of the sum of results times ``cotangents`` along
        ``directions`` (an array for each variable, e.g. ``input.x``), computed in forward mode.
        Return None if the framework has no forward mode."""
        function = self.forward_derivative_function(phase)
        if function is None:
            return None
        variables, constants = self.arguments(phase, inputs, state, {})
        for kind, arrays in (("cotangent", cotangents), ("direction", directions)):
            constants |= {f"{kind}.{n}": self.float_tensor(a) for n, a in arrays.items()}
        results = promises.check_mapping(function(variables, constants), COMPILED)
        return self.to_numpy(results)["derivative"]

    def trace(
        self,
        phase: Phase,
        inputs: Arrays,
        state: Arrays,
        targets: Arrays | None = None,
        instead: Sequence[Named] = (),
    ) -> list[Named]:
        """Return every named value of a forward pass as a tuple (name, time step or None, array),
        in the order of computation.

        With targets, the values of the loss are included. ``instead`` has tuples of the same kind:
        their arrays replace computed values. Of a layer that the framework runs, only the results
        are returned. Loops run step by step.
        """
        tracing = Tracing(self.programs[phase], instead, self.float_tensor, self.array)
        variables, constants = self.arguments(phase, inputs, state, targets or {})
        mode: Mode = "forward" if targets is None else "loss"
        self.walk(phase, mode, variables, constants, tracing.watch)
        return tracing.values

    def step(
        self, inputs: Arrays, state: Arrays, targets: Arrays, learning_rate: float
    ) -> ArrayDict:
        """Make one training step with the given learning rate. Return the results of its forward
        pass by name, as computed before the parameters change."""
        variables, constants = self.arguments("training", inputs, state, targets)
        results, gradients = self._run_gradients("training", "loss", variables, constants)
        self.steps += 1
        trained = self.trained()
        own_gradients = {n: gradients[n] for n in trained}
        if self.optimizer is not None:
            rate: Any = learning_rate
            if self.rule_update().feeds:
                own_gradients, rate = self.fed(
                    trained, own_gradients, self.scalar(self.steps), rate
                )
            returned = self.optimizer.update(self.optimizer_state, trained, own_gradients, rate)
            self.optimizer_state, trained = promises.check_pair(returned, *UPDATED)
        else:
            trained = self._apply_rule(trained, own_gradients, learning_rate)
        self.variables.update(trained)
        self.statistics = {n: results.get(f"statistics.{n}", t) for n, t in self.statistics.items()}
        return self.to_numpy(results)

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        run = self._cached("update", lambda: self.compiled(self.rule_update().run))
        before = {f"{slot}.{n}": t for slot, ts in self.slots.items() for n, t in ts.items()}
        before[STEP] = self.scalar(float(self.steps))
        results = self.updated(run, trained, gradients, before, learning_rate)
        if self.scales:
            before |= {**trained, **self.scaling}
            results, self.scaling = updates.finish_scaled_step(
                self.interpreter({}), gradients, before, results
            )
            self.steps = steps_made(self.array(results[STEP], STEP))
        self.slots = {s: {n: results[f"{s}.{n}"] for n in ts} for s, ts in self.slots.items()}
        return {n: results[n] for n in trained}

    def updated(
        self, run: Function, variables: Tensors, gradients: Tensors, before: Tensors, rate: float
    ) -> Tensors:
        """Run the optimizer's equations once. Return the new variables by name, and the new slots
        as ``SLOT.NAME``.

        ``run`` computes the equations. ``before`` has the slots before the update, and the step
        number under the name :data:`.updates.STEP`.
        """
        constants = {f"{s}.{n}": before[f"{s}.{n}"] for s, ts in self.slots.items() for n in ts}
        constants |= self._rule_constants(variables, gradients, before[STEP], rate)
        results = promises.check_mapping(run(variables, constants), COMPILED)
        return {n.removeprefix("parameter."): t for n, t in results.items()}

    def fed(
        self, variables: Tensors, gradients: Tensors, step: Any, learning_rate: float
    ) -> tuple[Tensors, Any]:
        """Return the gradients and the learning rate to pass to a framework's own optimizer: the
        spec's clipping and learning-rate schedule are applied to them. See
        :meth:`.updates.Update.fed`."""
        constants = self._rule_constants(variables, gradients, step, learning_rate)
        fed = self.rule_update().fed(variables, constants)
        return fed, fed.pop(RATE)

    def rule_update(self) -> Update:
        """Return the object that runs the optimizer's equations for all variables. Every call
        returns the same object."""
        assert self._update is not None
        return self._update

    def _rule_constants(
        self, variables: Tensors, gradients: Tensors, step: Any, learning_rate: float
    ) -> Tensors:
        constants = {f"gradient.{n}": gradients[n] for n in variables}
        return constants | {STEP: step, RATE: self.scalar(learning_rate)}

    def arguments(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays
    ) -> tuple[Tensors, Tensors]:
        """Check arrays, and convert them to tensors. Return two dictionaries: variables (for which
        gradients are computed), and constants.

        Noise is included only in training. Raise :class:`UsageError` if an array is missing,
        unknown or of a wrong shape (see :func:`~harness.program.signature.check_batch`).
        """
        program = self.programs[phase]
        if phase == "inference":
            inputs = without_noise(self.programs["training"], inputs)
        groups = {"input": inputs, "state": state, **({"target": targets} if targets else {})}
        check_batch(program, groups)
        variables, constants = dict(self.variables), {}
        for group, arrays in groups.items():
            for port in batch_ports(program)[group]:
                name, array = f"{group}.{port.name}", arrays[port.name]
                if (kind := program.type_of(port).kind) != "float":
                    constants[name] = self.backend.tensor(np.array(array, WHOLE[kind]))
                elif group == "target":
                    constants[name] = self.float_tensor(array)
                else:
                    variables[name] = self.float_tensor(array)
        constants.update({f"statistics.{n}": t for n, t in self.statistics.items()})
        if self.whole is not None:
            self.whole.build(phase, self.sizes(phase, {**variables, **constants}))
        return variables, constants

    def _run_gradients(
        self, phase: Phase, mode: Mode, variables: Tensors, constants: Tensors
    ) -> tuple[Tensors, Tensors]:
        returned = self.gradient_function(phase, mode)(variables, {**constants, **self.scaling})
        both = promises.check_pair(returned, COMPILED, "results and gradients")
        results, gradients = (promises.check_mapping(part, COMPILED) for part in both)
        return {n: t for n, t in results.items() if n != "scalar"}, dict(gradients)


class CannotStart(Exception):
    """Error: a framework can be imported but cannot compute, for example because it finds no
    device."""


def open_session(
    backend: Backend, training: Any, inference: Any, rule: Any, path: str, dtype: str, device: str
) -> Session:
    """Prepare the backend for a device and dtype, and return a session for the encoded programs of
    a model.

    Raises:
        CannotStart: the framework cannot make a tensor or read it back.
    """
    backend.use(device, dtype)
    try:
        backend.numpy(backend.tensor(np.ones((2, 3), host_dtype(dtype))))
    except Exception as error:
        raise CannotStart(
            f"it cannot create a tensor and read it back: {type(error).__name__}: {error}"
        ) from error
    programs = (decoded(training), decoded(inference))
    return make_session(backend, *programs, path=path, dtype=dtype, rule=rule and decoded(rule))


def make_session(
    backend: Backend, training: Program, inference: Program, **choices: Any
) -> Session:
    """Return a session for a model: of the backend's own class if it has one, or else of the
    standard class. ``choices`` are the further arguments of a session, e.g. ``path``.

    Raises:
        ContractError: the backend returned an object that is not a session.
    """
    session = backend.session(training, inference, **choices)
    if session is None:
        return Session(backend, training, inference, **choices)
    expected = "a harness.extend.executor.Session, or None"
    checked: Session = promises.check_type(session, Session, "session()", expected)
    return checked
