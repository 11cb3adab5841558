"""The native path of the Keras backends: a program is converted to a ``keras.Model``, which then
runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.extend import Native, Program, Tensors
from harness.extend.executor import VARIABLES, Claimed, Line, Session, Values, WholeModel
from harness.extend.program import (
    Block,
    Node,
    Phase,
    crossing_ports,
    free_values,
    needed_nodes,
    owner_of,
)

from .attention import KIND as ATTENTION
from .layers import variables

# The names of the states of a layer, in Keras' order.
STATES = ("h", "c", "back_h", "back_c")
# A function that returns extra arguments for a call of a layer from the layer's inputs.
ExtraArguments = Callable[[Tensors], Mapping[str, Any]]


@dataclass(frozen=True)
class KerasLayer(Native):
    """A native layer that calls the Keras layer ``layer``. The function ``extra_arguments`` gets
    the inputs of a call, and returns further keyword arguments for Keras, e.g. ``mask``."""

    layer: Any
    extra_arguments: ExtraArguments | None = None


def _source(layer: Any, values: Tensors) -> list[Any]:
    """Return the positional arguments of a call of a Keras layer. Self-attention gets the same
    tensor twice, because Keras' attention takes a query and a value."""
    source = values["indices"] if "indices" in values else values["x"]
    if type(layer).__name__ == ATTENTION:
        return [source, values.get("memory", source)]
    return [source]


def mask_of(values: Tensors) -> Mapping[str, Any]:
    """Return a dictionary with the keyword argument ``mask``, for a call of a recurrent layer with
    a padding mask."""
    return {"mask": values["mask"]}


def _states(values: Tensors) -> list[Any]:
    return [values[name] for name in STATES if name in values]


def as_list(result: Any) -> list[Any]:
    """Return the results of a call of a layer as a list."""
    return list(result) if isinstance(result, list | tuple) else [result]


def _cast_results(results: Sequence[Any], cast: Any) -> list[Any]:
    """Return the results of a layer. If ``cast`` is given, because the layer has a mixed dtype
    policy, they are cast to float32."""
    return [m if m is None else cast(m, "float32") for m in results] if cast else list(results)


def eager(
    layer: Any, training: bool, cast: Any, extra_arguments: ExtraArguments | None = None
) -> Callable[[Tensors, Tensors], Sequence[Any]]:
    """Return a function that calls the Keras layer ``layer`` eagerly, outside of a ``keras.Model``.
    ``cast`` converts results to float32; it is None unless the layer has a mixed dtype policy."""

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        sources, states = _source(layer, values), _states(values)
        if not layer.built:
            layer.build(*(tuple(x.shape) for x in sources))
        normalises = hasattr(layer, "moving_mean")
        free: dict[str, Any] = {"initial_state": states} if states else {}
        if extra_arguments is not None:
            free |= extra_arguments(values)
        if normalises:
            free["training"] = training
        names = {id(v): name for name, v in variables(layer).items()}
        weights = [packed[names[id(v)]] for v in layer.trainable_variables]
        fixed = [values.get(v.name, v.value) for v in layer.non_trainable_variables]
        outputs, changed = layer.stateless_call(weights, fixed, *sources, **free)
        return _cast_results([outputs, *changed] if normalises else as_list(outputs), cast)

    return run


def symbolic(
    native: KerasLayer,
    is_zero: Callable[[Any], bool],
    cast: Any,
    join: Callable[[Any], Any],
) -> Claimed:
    """Return a function that prepares a call of the layer for the interpreter. The call gets Keras'
    symbolic tensors, while a ``keras.Model`` is built.

    ``is_zero`` says whether an initial state is constant zero. If all initial states are zero,
    Keras creates them. ``cast`` converts results to float32; it is None unless the layer has a
    mixed dtype policy. ``join`` makes a constant a symbolic tensor: Keras would call the layer at
    once for a constant, with the layer's current variables.
    """

    def claimed(node: Node) -> Line:
        roles = tuple(zip(node.attributes["roles"], node.inputs, strict=True))

        def line(values: Values) -> None:
            tensors = {role: values[i] for role, i in roles if i in values}
            states, extra_arguments = _states(tensors), native.extra_arguments
            free = {} if all(map(is_zero, states)) else {"initial_state": states}
            free |= extra_arguments(tensors) if extra_arguments is not None else {}
            sources = map(join, _source(native.layer, tensors))
            results = _cast_results(as_list(native.layer(*sources, **free)), cast)
            # New statistics are not tensors of the graph: Keras updates them as a side effect.
            values.update(zip(node.outputs, [*results, *[None] * len(node.outputs)], strict=False))

        return line

    return claimed


@dataclass(frozen=True)
class BuiltModel:
    """A ``keras.Model`` for one phase (training or inference) and given input sizes.

    Values are identified by their numbers in the program. ``trained`` has the packed names of the
    trained variables, e.g. ``rnn/kernel``. ``fixed`` lists the untrained variables (e.g. moving
    statistics), each with the numbers of its value before and after the call. ``constants`` are
    results that do not depend on inputs. ``done`` has the numbers of all values that the model
    computes.
    """

    model: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    trained: tuple[str, ...]
    fixed: tuple[tuple[Any, int | None, int | None], ...]
    constants: Mapping[int, Any]
    done: frozenset[int]


class KerasModels(WholeModel):
    """The native path of a session: it holds a ``keras.Model`` for each phase (training or
    inference) and for each set of input sizes.

    All models share their layers. Each call passes the parameters as arguments
    (``stateless_call``), so models are pure functions. :meth:`model` also copies the parameters
    into the layers' variables. ``index`` is the dtype of inputs that are indices.
    """

    def __init__(self, keras: Any, session: Session, index: str) -> None:
        self.keras, self.session, self.index = keras, session, index
        natives = session.natives["training"].items()
        self.natives = {key: n for key, n in natives if isinstance(n, KerasLayer)}
        self.layers = {key: native.layer for key, native in self.natives.items()}
        self._graphs: dict[Any, BuiltModel] = {}

    def model(self, phase: Phase, /, **sizes: int) -> Any:
        """Return the ``keras.Model`` for a phase (training or inference) and these input sizes,
        with the session's current parameters."""
        program = self.session.programs[phase]
        graph = self._graph(phase, {**program.sizes, **sizes})
        for variable, name in zip(graph.model.trainable_variables, graph.trained, strict=True):
            variable.assign(self.session.variables[name])
        names = {port.value: port.name for port in program.statistics}
        for variable, before, _ in graph.fixed:
            if before in names:
                variable.assign(self.session.statistics[names[before]])
        return graph.model

    def build(self, phase: Phase, sizes: Mapping[str, int]) -> None:
        self._graph(phase, sizes)

    def run(
        self, phase: Phase, sizes: Mapping[str, int], values: Values, variables: Tensors
    ) -> frozenset[int]:
        graph = self._graph(phase, sizes)
        outputs, fixed = graph.model.stateless_call(
            [variables[name] for name in graph.trained],
            [
                variable.value if before is None else values[before]
                for variable, before, _ in graph.fixed
            ],
            [values[i] for i in graph.inputs],
            training=phase == "training",
        )
        values.update(graph.constants)
        values.update(zip(graph.outputs, as_list(outputs), strict=True))
        after = zip(graph.fixed, fixed, strict=True)
        values.update({value: tensor for (_, _, value), tensor in after if value is not None})
        return graph.done

    def _graph(self, phase: Phase, sizes: Mapping[str, int]) -> BuiltModel:
        key = (phase, *sorted(sizes.items()))
        if key not in self._graphs:
            self._graphs[key] = self._build(phase, sizes)
        return self._graphs[key]

    def _build(self, phase: Phase, sizes: Mapping[str, int]) -> BuiltModel:
        """Make the ``keras.Model`` for a phase and input sizes. As usual in Keras, the loss is not
        part of the model."""
        program, keras_tensor = self.session.programs[phase], self.keras.KerasTensor

        def is_zero(value: Any) -> bool:
            return (
                not isinstance(value, keras_tensor) and not self.session.backend.numpy(value).any()
            )

        ends = [p.value for p in (*program.outputs, *program.new_state, *program.new_statistics)]
        nodes = needed_nodes(program.nodes, ends)
        done = frozenset(output for node in nodes for output in node.outputs)
        env = self._inputs(program, set(free_values(Block((), nodes, tuple(ends)))), sizes)
        inputs = dict(env)
        cast = self.keras.ops.cast if self.session.products else None
        ops = self.keras.ops

        def join(value: Any) -> Any:
            if isinstance(value, keras_tensor) or not inputs:
                return value
            nothing = ops.take(next(iter(inputs.values())), np.zeros(0, "int32"), axis=0)
            zero = ops.sum(ops.cast(nothing, "float32"))
            dtype = self.keras.backend.standardize_dtype(value.dtype)
            return ops.add(ops.cast(zero, dtype), value)

        natives = self.natives.items()
        layers = {key: symbolic(native, is_zero, cast, join) for key, native in natives}
        env[VARIABLES] = {}
        self.session.interpreter(sizes, self.session.claimed(phase) | layers).run(nodes, env)
        rest = tuple(node for node in program.nodes if not done.issuperset(node.outputs))
        needed = [*ends, *(i for i in free_values(Block((), rest, ())) if i in done)]
        outputs = {i: env[i] for i in needed if isinstance(env[i], keras_tensor)}
        constants = {i: env[i] for i in needed if i not in outputs and env[i] is not None}
        name = program.name.rpartition("/")[2]
        model = self.keras.Model(list(inputs.values()), list(outputs.values()), name=name)
        trained, fixed = self._variables(program, model)
        return BuiltModel(model, tuple(inputs), tuple(outputs), trained, fixed, constants, done)

    def _inputs(self, program: Program, used: set[int], sizes: Mapping[str, int]) -> dict[int, Any]:
        """Return a ``keras.Input`` for each value that the model needs as input, by value number.
        Values that are variables of Keras layers are left out."""
        keras_inputs = {}
        for prefix, port in crossing_ports(program):
            owned = prefix in ("", "statistics.") and owner_of(port.name) in self.layers
            if port.value in used and not owned:
                kinds = {"float": self.session.dtype, "index": self.index, "bool": "bool"}
                dtype = kinds[program.type_of(port).kind]
                keras_inputs[port.value] = self.keras.Input(
                    batch_shape=program.shape(port, sizes), dtype=dtype, name=f"{prefix}{port.name}"
                )
        return keras_inputs

    def _variables(
        self, program: Program, model: Any
    ) -> tuple[tuple[str, ...], tuple[tuple[Any, int | None, int | None], ...]]:
        """Return the names of the trained variables, and a list of the untrained variables. The
        list has tuples: the variable, the number of its value before the call, and the number of
        its value after it."""
        owners = {
            id(v): (key, name)
            for key, layer in self.layers.items()
            for name, v in variables(layer).items()
        }
        before = {p.name: p.value for p in program.statistics}
        after = {p.name: p.value for p in program.new_statistics}
        fixed = []
        for variable in model.non_trainable_variables:
            name = ".".join(owners[id(variable)])
            # The random seed of a recurrent layer is no statistic, and is never used.
            fixed.append((variable, before.get(name), after.get(name)))
        trained = tuple("/".join(owners[id(v)]) for v in model.trainable_variables)
        return trained, tuple(fixed)
