"""Keras 3 on TensorFlow (``keras``), on torch (``keras-torch``) and on JAX (``keras-jax``).

The native path is a real ``keras.Model``: claimed layers are the framework's own, everything else
is an operation of its graph, and one model is made for each batch size and length. Gradients are
the engine's. Keras fixes its engine when it is imported, so each name needs a process of its own.

TensorFlow runs eagerly until a function has been called :data:`EAGER_CALLS` times with the same
shapes, and is traced then: a trace costs about a second, which checks never earn back.

The optimizers are claimed in float64 too, because they can be made exact there: the learning rate
is stored in ``floatx``, and decay rates are given as numpy scalars, since TensorFlow rounds Python
floats to float32 on their way into a float64 cast. Embedding gradients are made dense, since
Keras on TensorFlow would otherwise square them row by row before it adds repeated rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract import (
    Backend,
    Function,
    GradientFunction,
    Layer,
    Native,
    NativeOptimizer,
    Tensors,
)
from harness.errors import HarnessError
from harness.hookspecs import hookimpl
from harness.packing import Join, Packing, Part, Stack
from harness.ports import Arrays, crossing_ports
from harness.program import Block, Node, Phase, Program, UpdateRule, free_values, needed_nodes
from harness.session import Session
from harness.walk import Kernel, Step, Table, Walker, Watch, loop

ENGINES = {"keras": "tensorflow", "keras-torch": "torch", "keras-jax": "jax"}
EAGER_CALLS = 10


class _TensorFlow:
    """Gradient tapes; eager first, traced where that pays."""

    def __init__(self) -> None:
        import tensorflow

        self.tf = tensorflow

    def use(self, dtype: str) -> None:
        self.tf.config.experimental.enable_tensor_float_32_execution(False)

    def gpus(self) -> bool:
        return bool(self.tf.config.list_physical_devices("GPU"))

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        calls: dict[Any, int] = {}
        traced = self.tf.function(function, autograph=False)

        def run(variables: Tensors, constants: Tensors) -> Any:
            shapes = ((n, tuple(t.shape)) for n, t in {**variables, **constants}.items())
            key = frozenset(shapes)
            calls[key] = calls.get(key, 0) + 1
            return (function if calls[key] <= EAGER_CALLS else traced)(variables, constants)

        return run

    def gradient(self, function: Function) -> GradientFunction:
        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            with self.tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(variables.values()))
                results = function(variables, constants)
            found = tape.gradient(results["scalar"], variables, unconnected_gradients="zero")
            # Rows of an embedding come as IndexedSlices, see the module.
            return results, {n: self.tf.convert_to_tensor(g) for n, g in found.items()}

        return self.compile(run)

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Through variables: ``stateless_apply`` of Keras does not work on TensorFlow."""
        slots = optimizer.variables
        for variable, tensor in zip([*trained, *slots], [*tensors, *state], strict=True):
            variable.assign(tensor)
        optimizer.apply(gradients)
        identity = self.tf.identity
        return [identity(v.value) for v in trained], [identity(v.value) for v in slots]


class _Torch:
    """Autograd, eager."""

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def use(self, dtype: str) -> None:
        self.torch.backends.cuda.matmul.allow_tf32 = False
        self.torch.backends.cudnn.allow_tf32 = False

    def gpus(self) -> bool:
        return bool(self.torch.cuda.is_available())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(variables: Tensors, constants: Tensors) -> Any:
            with self.torch.no_grad():
                return function(variables, constants)

        return run

    def gradient(self, function: Function) -> GradientFunction:
        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            leaves = {n: t.detach().requires_grad_() for n, t in variables.items()}
            results = function(leaves, constants)
            found = self.torch.autograd.grad(
                results["scalar"], list(leaves.values()), allow_unused=True
            )
            zeros = self.torch.zeros_like
            pairs = zip(leaves.items(), found, strict=True)
            gradients = {n: zeros(leaf) if g is None else g for (n, leaf), g in pairs}
            return {n: t.detach() for n, t in results.items()}, gradients

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """On copies: Keras' optimizers for torch write into the tensors that they are given."""
        copies = [t.clone() for t in state], gradients, [t.clone() for t in tensors]
        return optimizer.stateless_apply(*copies)  # type: ignore[no-any-return]


class _Jax:
    """Traced and compiled, once for each shape."""

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def use(self, dtype: str) -> None:
        self.jax.config.update("jax_enable_x64", dtype == "float64")
        self.jax.config.update("jax_default_matmul_precision", "highest")

    def gpus(self) -> bool:
        return any(d.platform == "gpu" for d in self.jax.devices())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.jax.jit(function)

    def gradient(self, function: Function) -> GradientFunction:
        def scalar(variables: Tensors, constants: Tensors) -> tuple[Any, Tensors]:
            results = function(variables, constants)
            return results["scalar"], results

        both = self.jax.jit(self.jax.value_and_grad(scalar, has_aux=True))

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            (_, results), gradients = both(variables, constants)
            return results, gradients

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        return optimizer.stateless_apply(state, gradients, tensors)  # type: ignore[no-any-return]


Engine = _TensorFlow | _Torch | _Jax
MAKERS: Mapping[str, Callable[[], Engine]] = {
    "tensorflow": _TensorFlow,
    "torch": _Torch,
    "jax": _Jax,
}


def _table(ops: Any) -> Table:
    """The primitives; they take Keras' symbolic tensors too."""

    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        shape, rank = tuple(x.shape), len(indices.shape)
        count = int(np.prod(shape[:rank]))
        flat = ops.reshape(x, (count, int(np.prod(shape[rank:]))))
        total = ops.segment_sum(flat, ops.reshape(indices, (count,)), num_segments=rows)
        return ops.reshape(total, (rows, *shape[rank:]))

    same = ("exp", "log", "tanh", "sqrt", "negative", "add", "subtract", "multiply", "divide")
    same += ("power", "less", "less_equal", "equal", "where", "broadcast_to", "expand_dims")
    same += ("squeeze", "flip", "sum", "max", "matmul", "tensordot", "stop_gradient")
    return {name: getattr(ops, name) for name in same} | {
        "astype": ops.cast,
        "permute_dims": ops.transpose,
        "concat": ops.concatenate,
        "slice": lambda x, axis, start, stop: x[(slice(None),) * axis + (slice(start, stop),)],
        "take": lambda x, indices: ops.take(x, indices, axis=0),
        "take_along_axis": lambda x, indices: ops.take_along_axis(x, indices, axis=-1),
        "one_hot": lambda indices, classes, dtype: ops.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
    }


def _gates(stem: str, gates: str, axis: int) -> Join:
    return Join(tuple(Part(f"{stem}_{gate}") for gate in gates), axis)


def _gated(gates: str, bias: Join | Stack) -> Packing:
    """Keras' order of the gates, side by side in each tensor."""
    kernels = {"kernel": _gates("W", gates, 1), "recurrent_kernel": _gates("U", gates, 1)}
    return Packing({**kernels, "bias": bias})


_DENSE = {"kernel": Part("W"), "bias": Part("b")}
_SIMPLE = {"kernel": Part("W"), "recurrent_kernel": Part("U"), "bias": Part("b")}
_NO_BIAS = {"use_bias": False}
# definition -> (class, its further arguments, packing)
LAYERS: Mapping[str, tuple[str, Mapping[str, Any], Packing]] = {
    "embedding": ("Embedding", {}, Packing({"embeddings": Part("table")})),
    "batch_norm": ("BatchNormalization", {}, Packing.plain(("gamma", "beta"))),
    "dense": ("Dense", {}, Packing(_DENSE)),
    "dense_without_bias": ("Dense", _NO_BIAS, Packing({"kernel": Part("W")})),
    "simple_rnn": ("SimpleRNN", {}, Packing(_SIMPLE)),
    "simple_rnn_without_bias": (
        "SimpleRNN",
        _NO_BIAS,
        Packing({n: p for n, p in _SIMPLE.items() if n != "bias"}),
    ),
    "lstm": ("LSTM", {}, _gated("ifgo", _gates("b", "ifgo", 0))),
    "gru": ("GRU", {"reset_after": False}, _gated("zrn", _gates("b", "zrn", 0))),
    "gru_reset_after": (
        "GRU",
        {"reset_after": True},
        _gated("zrn", Stack((_gates("b", "zrn", 0), _gates("c", "zrn", 0)))),
    ),
}
RECURRENT = ("SimpleRNN", "LSTM", "GRU")
# definition -> (class, its arguments, the slots in the order of Keras)
OPTIMIZERS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "sgd": ("SGD", (), ()),
    "sgd_momentum_scaled": ("SGD", ("momentum",), ("velocity",)),
    "adam_epsilon_hat": ("Adam", ("beta_1", "beta_2", "epsilon"), ("m", "v")),
    "rmsprop_epsilon_inside": ("RMSprop", ("rho", "epsilon"), ("v",)),
}


@dataclass(frozen=True)
class KerasLayer(Native):
    """A claimed layer; the object that holds its variables and stands in the model."""

    layer: Any

    def symbolic(self, values: Tensors, is_zero: Callable[[Any], bool]) -> Sequence[Any]:
        """Apply the layer inside a model. First states of constant zeros are Keras' own."""
        states = [values[name] for name in ("h", "c") if name in values]
        free = {} if all(map(is_zero, states)) else {"initial_state": states}
        made = self.layer(values["indices"] if "indices" in values else values["x"], **free)
        return made if isinstance(made, list | tuple) else [made]


class _Optimizer(NativeOptimizer):
    def __init__(
        self, backend: Keras, kind: str, settings: Mapping[str, float], slots: Sequence[str]
    ) -> None:
        self.label = f"keras.optimizers.{kind}"
        self.backend, self.kind, self.settings, self.names = backend, kind, settings, slots

    def start(self, variables: Tensors) -> Any:
        keras = self.backend.keras
        self.order = list(variables)
        number = np.float64 if keras.config.floatx() == "float64" else float  # see the module
        settings = {name: number(value) for name, value in self.settings.items()}
        optimizer = getattr(keras.optimizers, self.kind)(learning_rate=0.0, **settings)
        trained = [keras.Variable(self.backend.numpy(t)) for t in variables.values()]
        optimizer.build(trained)

        def step(variables: Tensors, constants: Tensors) -> Tensors:
            tensors = [variables[n] for n in self.order]
            gradients = [constants[f"gradient.{n}"] for n in self.order]
            state = [constants[f"state.{i}"] for i in range(len(optimizer.variables))]
            made = self.backend.engine.apply(optimizer, trained, tensors, state, gradients)
            named = zip(self.order, made[0], strict=True)
            return {**dict(named), **{f"state.{i}": t for i, t in enumerate(made[1])}}

        self.step = self.backend.engine.compile(step)
        return [self.backend.tensor(self.backend.numpy(v.value)) for v in optimizer.variables]

    def update(
        self, state: Any, variables: Tensors, gradients: Tensors, learning_rate: float
    ) -> tuple[Any, Tensors]:
        rate = self.backend.tensor(np.array(learning_rate, self.backend.keras.config.floatx()))
        state = [state[0], rate, *state[2:]]
        constants = {f"gradient.{n}": g for n, g in gradients.items()}
        constants |= {f"state.{i}": t for i, t in enumerate(state)}
        made = self.step(variables, constants)
        return [made[f"state.{i}"] for i in range(len(state))], {n: made[n] for n in self.order}

    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """Keras lists the iteration, the learning rate, then each variable's slots together."""
        count = len(self.names)
        return {
            slot: dict(zip(self.order, state[2 + i :: count], strict=True))
            for i, slot in enumerate(self.names)
        }


class Keras(Backend):
    """One engine's Keras; see the module."""

    def __init__(self, name: str, engine: str) -> None:
        import keras

        if keras.backend.backend() != engine:
            raise HarnessError(
                f"backend {name!r} needs Keras on {engine}, but Keras runs on "
                f"{keras.backend.backend()} in this process; set KERAS_BACKEND={engine} before "
                "keras is imported, and give each Keras backend a process of its own"
            )
        self.name, self.keras, self.engine = name, keras, MAKERS[engine]()
        self._engine_name = engine
        self._table = _table(keras.ops)
        self._device: Any = None

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return self.keras.ops.convert_to_tensor(np.array(array))  # an array of nobody else's

    def numpy(self, tensor: Any) -> npt.NDArray[Any]:
        return np.array(self.keras.ops.convert_to_numpy(tensor))

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("keras", self._engine_name, "numpy")}

    def devices(self) -> Sequence[str]:
        return ("cpu", "cuda") if self.engine.gpus() else ("cpu",)

    def use(self, device: str, dtype: str) -> None:
        if self._device is not None:
            self._device.__exit__(None, None, None)
        self._device = self.keras.device("gpu:0" if device == "cuda" else "cpu:0")
        self._device.__enter__()
        self.keras.config.set_floatx(dtype)
        self.engine.use(dtype)

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        if not isinstance(self.engine, _Jax) or isinstance(sequences[0], self.keras.KerasTensor):
            return loop(self.primitives, step, carries, sequences, reverse)
        last, stacked = self.engine.jax.lax.scan(
            lambda c, s: tuple(map(tuple, step(c, s))),
            tuple(carries),
            tuple(sequences),
            None,
            reverse,
        )
        return list(last), list(stacked)

    def compile(self, function: Function) -> Function:
        return self.engine.compile(function)

    def value_and_gradient(self, function: Function) -> GradientFunction:
        return self.engine.gradient(function)

    def claim(self, layer: Layer) -> Native | None:
        if layer.node.attributes["kind"] == "loss":
            return self._loss(layer.definition)
        if layer.definition not in LAYERS:
            return None
        kind, extra, packing = LAYERS[layer.definition]
        arguments = {**extra, **self._arguments(kind, layer)}
        if None in arguments.values():
            return None
        name = str(layer.node.attributes["instance"])
        # Operations of the graph are named after themselves, and names must not be shared.
        taken = name.rstrip("_0123456789") in {*self._table, "cast", "transpose", "get_item"}
        made = getattr(self.keras.layers, kind)(
            name=f"{name}_layer" if taken else name, **arguments
        )
        run = _eager(made, layer.phase == "training")
        return KerasLayer(f"keras.layers.{kind}", run, packing, made)

    def _arguments(self, kind: str, layer: Layer) -> dict[str, Any]:
        """Arguments of the class; None for a function that Keras does not have."""
        given = layer.attributes
        if kind == "Embedding":
            rows, units = layer.shapes["table"]
            return {"input_dim": rows, "output_dim": units}
        if kind == "BatchNormalization":
            return {"epsilon": given["epsilon"], "momentum": given["momentum"]}
        units = next(s for n, s in layer.shapes.items() if n.startswith("W"))[1]
        found = {"units": units, "activation": self._activation(given["activation"])}
        if kind in RECURRENT:
            found |= {"return_sequences": True, "return_state": True}
        if "gate" in given:
            found["recurrent_activation"] = self._activation(given["gate"])
        return found

    def _activation(self, name: str) -> Any:
        if name == "hard_sigmoid_fifth":
            return self._hard_sigmoid_fifth
        same = {n: n for n in ("linear", "relu", "tanh", "sigmoid", "softmax", "log_softmax")}
        return {**same, "hard_sigmoid_sixth": "hard_sigmoid"}.get(name)

    def _hard_sigmoid_fifth(self, x: Any) -> Any:
        """The hard sigmoid of Keras 1 and 2, which Keras 3 has no name for."""
        ops = self.keras.ops
        y = 0.2 * x + 0.5
        y = ops.where(y <= 0.0, ops.zeros_like(y), y)
        return ops.where(y >= 1.0, ops.ones_like(y), y)

    def _loss(self, definition: str) -> Native | None:
        """Cross-entropies of logits.

        Not ``cross_entropy`` on TensorFlow, whose gradient takes it for granted that targets
        sum to 1. A copy of the logits keeps Keras from looking behind a softmax that made them.
        """
        losses, copy = self.keras.losses, self.keras.ops.copy
        functions = {"sparse_cross_entropy": losses.sparse_categorical_crossentropy}
        if not isinstance(self.engine, _TensorFlow):
            functions["cross_entropy"] = losses.categorical_crossentropy
        function = functions.get(definition)
        if function is None:
            return None

        def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
            return [function(values["target"], copy(values["logits"]), from_logits=True)]

        return Native(f"keras.losses.{function.__name__}", run, Packing({}))

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        if rule.name not in OPTIMIZERS:
            return None
        kind, names, slots = OPTIMIZERS[rule.name]
        return _Optimizer(self, kind, {n: rule.attributes[n] for n in names}, slots)

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        return KerasSession(self, training, inference, **choices)


def _eager(layer: Any, training: bool) -> Callable[[Tensors, Tensors], Sequence[Any]]:
    """The layer outside of a model, on variables that are passed in."""

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        x = values["indices"] if "indices" in values else values["x"]
        if not layer.built:
            layer.build(tuple(x.shape))
        states = [values[name] for name in ("h", "c") if name in values]
        free: dict[str, Any] = {"initial_state": states} if states else {}
        if hasattr(layer, "moving_mean"):
            free["training"] = training
        weights = [packed[v.name] for v in layer.trainable_variables]
        fixed = [values.get(v.name, v.value) for v in layer.non_trainable_variables]
        made, changed = layer.stateless_call(weights, fixed, x, **free)
        if hasattr(layer, "moving_mean"):
            return [made, *changed]
        return made if isinstance(made, list | tuple) else [made]

    return run


@dataclass(frozen=True)
class Graph:
    """A model for one phase and one set of sizes, and how its ends fit the program's values.

    ``fixed`` gives, for each variable that is not trained, the values before and after.
    """

    model: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    trained: tuple[str, ...]
    fixed: tuple[tuple[Any, int, int], ...]
    constants: Mapping[int, Any]
    done: frozenset[int]


class KerasSession(Session):
    """A session whose native path runs a ``keras.Model``."""

    backend: Keras

    def __init__(self, backend: Keras, *programs: Program, **choices: Any) -> None:
        super().__init__(backend, *programs, **choices)
        self._graphs: dict[Any, Graph] = {}

    def model(self, phase: Phase, **sizes: int) -> Any:
        """The ``keras.Model`` of a phase for the sizes of its inputs, with the present weights."""
        graph = self._graph(phase, {**self.programs[phase].sizes, **sizes})
        for variable, name in zip(graph.model.trainable_variables, graph.trained, strict=True):
            variable.assign(self.variables[name])
        ports = {p.value: p.name for p in self.programs[phase].statistics}
        for variable, before, _ in graph.fixed:
            if before in ports:
                variable.assign(self.statistics[ports[before]])
        return graph.model

    def arguments(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays
    ) -> tuple[Tensors, Tensors]:
        variables, constants = super().arguments(phase, inputs, state, targets)
        if self.path == "native":
            # Here, because a model must not be made while a compiler traces.
            self._graph(phase, self._env(self.programs[phase], variables, constants)[1])
        return variables, constants

    def _run(
        self,
        phase: Phase,
        nodes: Sequence[Node],
        env: dict[int, Any],
        sizes: Mapping[str, int],
        variables: Tensors,
        watch: Watch | None,
    ) -> None:
        if self.path == "native" and watch is None:
            graph = self._graph(phase, sizes)
            outputs, fixed = graph.model.stateless_call(
                [variables[name] for name in graph.trained],
                [env.get(before, variable.value) for variable, before, _ in graph.fixed],
                [env[i] for i in graph.inputs],
                training=phase == "training",
            )
            env.update(graph.constants)
            env.update(zip(graph.outputs, outputs, strict=True))
            env.update({a: t for (_, _, a), t in zip(graph.fixed, fixed, strict=True)})
            nodes = [node for node in nodes if not graph.done.issuperset(node.outputs)]
        super()._run(phase, nodes, env, sizes, variables, watch)

    def _graph(self, phase: Phase, sizes: Mapping[str, int]) -> Graph:
        key = (phase, tuple(sorted(sizes.items())))
        if key not in self._graphs:
            self._graphs[key] = self._build(phase, sizes)
        return self._graphs[key]

    def _build(self, phase: Phase, sizes: Mapping[str, int]) -> Graph:
        """The model is what outputs and states need; the loss is walked after it, as in Keras."""
        keras, program = self.backend.keras, self.programs[phase]
        ends = [p.value for p in (*program.outputs, *program.new_state, *program.new_statistics)]
        nodes = needed_nodes(program.nodes, ends)
        done = frozenset(output for node in nodes for output in node.outputs)
        rest = tuple(node for node in program.nodes if not done.issuperset(node.outputs))
        env = self._inputs(program, nodes, ends, sizes)
        inputs = dict(env)
        layers = {k: n for k, n in self.natives["training"].items() if isinstance(n, KerasLayer)}
        kernels = self._kernels(phase, {}, env) | {k: self._symbolic(n) for k, n in layers.items()}
        Walker(
            self.backend.primitives, sizes, self.dtype, self._scalar, self.backend.scan, kernels
        ).run(nodes, env)
        wanted = [*ends, *(i for i in free_values(Block((), rest, ())) if i in done)]
        symbolic = {i: env[i] for i in wanted if isinstance(env[i], keras.KerasTensor)}
        constants = {i: env[i] for i in wanted if i not in symbolic and env[i] is not None}
        model = keras.Model(list(inputs.values()), list(symbolic.values()), name=_name(program))
        owners = {id(v): f"{k}/{v.name}" for k, n in layers.items() for v in n.layer.variables}
        before = {p.name: p.value for p in program.statistics}
        after = {p.name: p.value for p in program.new_statistics}
        fixed = []
        for number, variable in enumerate(model.non_trainable_variables):
            name = owners[id(variable)].replace("/", ".")
            # Not a statistic: the unused random seed of a recurrent layer.
            fixed.append((variable, before.get(name, -1), after.get(name, -1 - number)))
        trained = tuple(owners[id(v)] for v in model.trainable_variables)
        return Graph(model, tuple(inputs), tuple(symbolic), trained, tuple(fixed), constants, done)

    def _inputs(
        self, program: Program, nodes: Sequence[Node], ends: Sequence[int], sizes: Mapping[str, int]
    ) -> dict[int, Any]:
        """An input for all that comes in and does not live in a claimed layer."""
        used = set(free_values(Block((), tuple(nodes), tuple(ends))))
        made = {}
        for prefix, port in crossing_ports(program):
            held = (
                prefix in ("", "statistics.")
                and port.name.partition(".")[0] in self.natives[program.phase]
            )
            if port.value in used and not held:
                dtype = self.dtype if program.type_of(port).kind == "float" else "int32"
                made[port.value] = self.backend.keras.Input(
                    batch_shape=program.shape(port, sizes), dtype=dtype, name=f"{prefix}{port.name}"
                )
        return made

    def _symbolic(self, native: KerasLayer) -> Kernel:
        keras_tensor, numpy = self.backend.keras.KerasTensor, self.backend.numpy

        def is_zero(value: Any) -> bool:
            return not isinstance(value, keras_tensor) and not numpy(value).any()

        def kernel(node: Node, env: Mapping[int, Any]) -> Sequence[Any]:
            roles = zip(node.attributes["roles"], node.inputs, strict=True)
            made = native.symbolic({r: env[i] for r, i in roles if i in env}, is_zero)
            # Statistics are not tensors of the graph: they come back beside its outputs.
            return [*made, *[None] * (len(node.outputs) - len(made))]

        return kernel


def _name(program: Program) -> str:
    return program.name.rpartition("/")[2]


@hookimpl
def harness_environment(name: str) -> Mapping[str, str]:
    return {
        "KERAS_BACKEND": ENGINES[name],
        "TF_CPP_MIN_LOG_LEVEL": "2",  # the notices at the start, oneDNN's included
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


@hookimpl
def harness_backend(name: str) -> Backend:
    return Keras(name, ENGINES[name])
