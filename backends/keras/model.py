"""Conversion of a program to a functional ``keras.Model`` of Keras layers and operations, to save
it in a file.

Layers have the names of the spec. For some calls, a layer class is generated, and its source (a
:class:`Module`) is written next to the model. These are layers that Keras does not have, and
operations that need the length of an axis that is unknown when the model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.extend import ClaimableCall, Native, Program, Table
from harness.extend.program import Dim, Node, Port, call_key, calls_by_layer
from harness.extend.source import PYTHON, Idioms, camel, identifier, vetted

from .attention import ATTENTION
from .backend import Keras
from .custom import Custom, class_text, custom
from .engines import TensorFlowEngine
from .graph import STATES, KerasLayer, as_list
from .layers import TWO_WAYS, is_operation_name, layer_name
from .primitives import table
from .primitives_export import LACKING, LOGIC, WORDS
from .sizes import bounds, free_sizes
from .source import HARD_SIGMOID_FIFTH
from .sums import order_of_sum

# Names that the generated module uses itself. Layers must not have these names.
TAKEN = PYTHON | {"keras", "ops"}


class Module:
    """The module next to a saved model: the source of functions and layers that Keras does not
    have, and the objects that this source defines."""

    def __init__(self, keras: Any) -> None:
        self.texts: dict[str, str] = {}
        self.defined: dict[str, Any] = {"keras": keras, "ops": keras.ops}

    def define(self, name: str, text: str) -> Any:
        """Return the function or class with this name; the first call executes its source
        ``text``."""
        if name not in self.texts:
            self.texts[name] = text
            source = vetted(text, WORDS, name)
            exec(compile(source, f"<{name}>", "exec"), self.defined)
        return self.defined[name]

    def layer(self, stem: str, text_of: Callable[[str], str]) -> Any:
        """Return the class with the source ``text_of(name)``. The name begins with ``stem``;
        classes with different sources get different names."""
        name, number = stem, 1
        while self.texts.get(name, text_of(name)) != text_of(name):
            number += 1
            name = f"{stem}{number}"
        return self.define(name, text_of(name))


class Claims(Keras):
    """The choice of Keras layers for a saved model, in any dtype. Activations that Keras 3 does not
    have are defined in ``module``, the module next to the model."""

    def __init__(self, name: str, engine: str) -> None:
        super().__init__(name, engine)
        self.module = Module(self.keras)
        # A saved file must work on every engine, so its layers do not depend on the engine. Only
        # operations that TensorFlow rounds in float64 are written as equations.
        self.inexact = TensorFlowEngine.inexact
        name = "hard_sigmoid_fifth"
        self.unnamed[name] = lambda: self.module.define(name, HARD_SIGMOID_FIFTH)

    def claim(self, layer: ClaimableCall) -> Native | None:
        """Return the Keras layer for a layer of the spec. Return None if the Keras layer has inner
        layers, which the format cannot read back from a file."""
        composed = layer.definition in (*ATTENTION, *TWO_WAYS)
        return None if composed else super().claim(layer)

    def starts(self, kind: Callable[..., Any]) -> Mapping[str, Any]:
        """Return an empty dictionary: layers keep Keras' initializers, so that users can train the
        saved model from new initial weights."""
        return {}


@dataclass(frozen=True)
class Built:
    """A finished model; ``layers`` maps the spec's name of a layer to the Keras layer.

    ``natives`` has the layers that Keras has itself, and how their variables correspond to the
    spec's parameters. ``module`` defines the other layers.
    """

    model: Any
    layers: Mapping[str, Any]
    natives: Mapping[str, KerasLayer]
    module: Module


def build(backend: Claims, program: Program, dtype: str) -> Built:
    """Build the Keras model of a program at its sizes, in ``dtype``. Its weights are not set."""
    backend.use("cpu", dtype)
    backend.keras.utils.clear_session()
    backend.module = Module(backend.keras)
    return Assembly(backend, program, dtype).built()


class Assembly:
    """A builder of a model: it calls a Keras layer or operation for each operation of the program,
    on Keras' symbolic tensors."""

    def __init__(self, backend: Claims, program: Program, dtype: str) -> None:
        self.backend, self.keras = backend, backend.keras
        names = dict(program.names)
        ports = [*program.outputs, *(Port(f"state.{p.name}", p.value) for p in program.new_state)]
        idioms = Idioms(dict(program.types), names=names, lacking=LACKING)
        self.nodes, ends = idioms.block(program.nodes, [p.value for p in ports])
        self.ends = {port.name: value for port, value in zip(ports, ends, strict=True)}
        self.program = replace(program, types=idioms.types, names=names)
        self.dtype, self.module = dtype, backend.module
        self.table = {**table(self.keras, {}), **_idioms(self.keras.ops)}
        self.natives = claimed(backend, program)
        self.layers: dict[str, Any] = {key: n.layer for key, n in self.natives.items()}
        self.inputs: dict[str, Any] = {}
        self.tensors: dict[int, Any] = {}
        # Nodes that compute constants. A constant becomes a tensor at its first use.
        self.constants: dict[int, Node] = {}
        # The variants of the calls of each layer that Keras lacks, by their source.
        self.forms: dict[str, dict[str, Custom]] = {}

    def built(self) -> Built:
        """Return the finished model; its outputs are a dict, with new states as ``state.NAME``."""
        program = self.program
        for prefix, ports in (("", program.inputs), ("state.", program.state)):
            for port in ports:
                self._input(f"{prefix}{port.name}", port.value)
        self._collect()
        for node in self.nodes:
            self._node(node)
        outputs = {name: self._tensor(value) for name, value in self.ends.items()}
        inputs = self.inputs if len(self.inputs) > 1 else next(iter(self.inputs.values()))
        model = self.keras.Model(inputs, outputs, name=identifier(program.name.rpartition("/")[2]))
        called = {id(layer) for layer in model.layers}
        layers = {key: layer for key, layer in self.layers.items() if id(layer) in called}
        return Built(model, layers, self.natives, self.module)

    def _input(self, name: str, value: int) -> None:
        type_, known = self.program.types[value], self.program.sizes
        shape = [None if set(d.names) - known.keys() else d.resolve(known) for d in type_.shape]
        # Use int32, because Keras on JAX lacks int64.
        dtype = {"float": self.dtype, "index": "int32", "bool": "bool"}[type_.kind]
        self.inputs[name] = self.keras.Input(batch_shape=shape, dtype=dtype, name=name)
        self.tensors[value] = self.inputs[name]

    def _node(self, node: Node) -> None:
        if node.op == "call":
            self._call(node)
        elif node.outputs[0] in self.constants:
            return
        elif node.op == "softmax":
            (source,) = node.inputs
            named = self.program.names.get(node.output, f"value_{node.output}")
            # Keras allows no slash, which separates a layer and its value.
            name = self._name(named.replace("/", "."))
            layer = self.keras.layers.Softmax(name=name)
            self.tensors[node.output] = layer(self.tensors[source])
        elif self._is_plain(node):
            order = order_of_sum(self.program, node) if node.op == "add" else None
            operands = [self._operand(value) for value in order or node.inputs]
            arguments = [operands] if node.op == "concat" else operands
            self.tensors[node.output] = self.table[node.op](*arguments, **self._attributes(node))
        else:
            self._generate(node)

    def _is_plain(self, node: Node) -> bool:
        """Return whether a single Keras operation can compute a node (an operation of the program).
        It cannot, for example, if the node needs the length of an axis that is unknown when the
        model is built."""
        constant_ops = [
            self.constants[value].op for value in node.inputs if value in self.constants
        ]
        if node.op == "multiply" and constant_ops:
            # Keras treats the product of a symbolic tensor and a number as a sparse tensor.
            return False
        if node.op == "add" and not constant_ops and order_of_sum(self.program, node) is None:
            return False
        return not free_sizes(self.program, [node]) and set(constant_ops) <= {"constant"}

    def _attributes(self, node: Node) -> dict[str, Any]:
        attributes = dict(node.attributes)
        if node.op in ("slice", "select"):
            ends = {n: d.constant for n, d in bounds(self.program, node).items()}
            attributes = {n: ends.get(n) for n in attributes} | {"axis": attributes["axis"]}
        if node.op in ("astype", "one_hot"):
            attributes["dtype"] = self.dtype
        return {name: self._numbers(attribute) for name, attribute in attributes.items()}

    def _numbers(self, attribute: Any) -> Any:
        if isinstance(attribute, tuple):
            return tuple(map(self._numbers, attribute))
        sizes = self.program.sizes
        return attribute.resolve(sizes) if isinstance(attribute, Dim) else attribute

    def _operand(self, value: int) -> Any:
        constant = self.constants.get(value)
        if constant is None:
            return self.tensors[value]
        figure = constant.attributes["value"]
        return figure if self.program.types[value].kind == "float" else int(figure)

    def _tensor(self, value: int) -> Any:
        """Return the tensor of a value, given the value's number. A constant is converted to a
        tensor when it is first used."""
        if value not in self.tensors:
            self._generate(self.constants[value])
        return self.tensors[value]

    def _call(self, node: Node) -> None:
        key = call_key(node)
        roles = dict(zip(node.attributes["roles"], node.inputs, strict=True))
        if key not in self.natives:
            self._generate(node)
            return
        states = [roles[name] for name in STATES if name in roles]
        # Keras starts from zeros if no initial state is given.
        starts = [] if all(map(self._is_zero, states)) else list(map(self._tensor, states))
        source = self._tensor(roles["indices"] if "indices" in roles else roles["x"])
        keywords = {"initial_state": starts} if starts else {}
        results = as_list(self.layers[key](source, **keywords))
        # Omit the new statistics, which come last: they are not outputs of the model.
        self.tensors.update(zip(node.outputs, results, strict=False))

    def _is_zero(self, value: int) -> bool:
        node = self.constants.get(value)
        if node is None:
            return False
        if node.op == "broadcast_to":
            return self._is_zero(node.inputs[0])
        return node.op == "constant" and node.attributes["value"] == 0.0

    def _custom(self, node: Node) -> Custom:
        taken = dir(self.keras.layers.Layer())
        return custom(self.program, node, self.constants.values(), taken)

    def _collect(self) -> None:
        """Find two things in advance: the operations that compute constants, and, for each layer
        that Keras does not have, its different calls."""
        for node in self.nodes:
            if node.op != "call" and all(value in self.constants for value in node.inputs):
                self.constants[node.output] = node
        for node in self.nodes:
            if node.op == "call" and call_key(node) not in self.natives:
                form = self._custom(node)
                self.forms.setdefault(call_key(node), {}).setdefault(
                    "\n".join(form.method("")), form
                )

    def _generate(self, node: Node) -> None:
        """Generate a layer class for a node (a call of a layer or an operation), and call the layer
        on Keras' symbolic tensors."""
        made_of = self._custom(node)
        key = call_key(node) if node.op == "call" else ""
        text = "\n".join(made_of.method(""))
        forms = self.forms.get(key, {text: made_of})
        if key not in self.layers:
            stem = str(node.attributes["definition"] if key else node.op)
            kind = self.module.layer(
                camel(stem, TAKEN), partial(class_text, forms=[*forms.values()])
            )
            name = self._name(layer_name(key) or f"value_{node.output}")
            layer = kind(name=name, dtype=self.dtype)
        else:
            layer = self.layers[key]
        if key:
            self.layers[key] = layer
        tensors = [self.tensors[value] for value in made_of.arguments]
        number = [*forms].index(text) + 1
        results = layer(tensors, form=number) if len(forms) > 1 else layer(*tensors)
        self.tensors.update(zip(made_of.results, as_list(results), strict=True))

    def _name(self, name: str) -> str:
        """Return a name, or a changed name if an input, a layer or an operation has it
        already."""
        taken = {*self.inputs, *(layer.name for layer in self.layers.values())}
        if name in taken or is_operation_name(name, self.keras):
            return f"{name}_layer"
        return name


def _idioms(ops: Any) -> Table:
    """Return a dictionary with Keras' functions for common combinations of primitives, such as
    ``relu``. Softmax is left out, because Keras has a layer for it."""
    return {
        **{name: getattr(ops, name) for name in ("relu", "sigmoid", "log_softmax", "mean")},
        **{name: getattr(ops, name) for name in ("silu", "sign", "logical_not", *LOGIC)},
        **{f"{name}_along": getattr(ops, name) for name in ("softmax", "log_softmax")},
        # The derivative of ops.clip at both limits is 1, but that of the spec is 0.
        "clip": lambda x, low, high: ops.where(
            ops.logical_and(x > low, x < high), x, ops.stop_gradient(ops.clip(x, low, high))
        ),
        "select": lambda x, axis, index: x[(slice(None),) * axis + (index,)],
    }


def claimed(backend: Claims, program: Program) -> dict[str, KerasLayer]:
    """Return a dictionary from a layer of the spec to the Keras layer that replaces it. A layer is
    included if the Keras layer can replace all of its calls."""
    by_layer: dict[str, Any] = {}
    for key, calls in calls_by_layer(program).items():
        natives = [backend.claim(c) for c in calls if c.node.attributes["kind"] == "layer"]
        if natives and all(natives):
            by_layer[key] = natives[0]
    return by_layer
