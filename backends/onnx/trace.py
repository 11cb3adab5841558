"""Trace an ONNX graph: run it once with all values as outputs, and translate its operators.

The run gives the shape of each value. Values that depend on no input, such as the shape of a
reshape, are read from the run too, so that the neutral graph has numbers in their place.
:mod:`harness.runtime.own_model.graph` defines the operators of the neutral graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from harness.extend import Array, Arrays, UsageError, shorten
from harness.extend.models import GraphBuilder, Operand, TracedGraph

from . import trace_layers, trace_recurrent  # register rules
from .prepare import COPY, clean, modules_of
from .trace_rules import RULES, Rule

__all__ = ["trace_graph", "trace_layers", "trace_recurrent"]

# Operators whose result depends on the shape of their input only.
SHAPES = frozenset(["Shape", "Size"])
# Operators whose inputs after the first are weights.
LAYERS = frozenset(["Conv", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization"])
KINDS = {"f": "float", "i": "index", "u": "index", "b": "boolean"}


def trace_graph(proto: Any, label: str, arrays: Arrays, outputs: Mapping[str, str]) -> TracedGraph:
    """Return the graph of one forward pass.

    Args:
        proto: The ONNX model, whose weights are initializers.
        label: The model's description.
        arrays: The array of each of the graph's inputs, in the input's dtype.
        outputs: The graph's name of each output, by the name in the neutral graph.

    Raises:
        UsageError: onnxruntime does not run the graph with these arrays.
    """
    values = run_all(proto, arrays)
    return OnnxTranslation(proto, label, arrays, values).run(outputs)


def run_all(proto: Any, arrays: Arrays) -> dict[str, Any]:
    """Return each value of a graph by name; None for sequences and maps.

    Raises:
        UsageError: onnxruntime does not run the graph with these arrays.
    """
    onnx, runtime = import_module("onnx"), import_module("onnxruntime")
    every = onnx.ModelProto()
    every.CopyFrom(proto)
    del every.graph.value_info[:], every.graph.output[:]
    names = list(dict.fromkeys(n for node in proto.graph.node for n in node.output if n))
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(
            every.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(names, dict(arrays))
    # onnxruntime's exceptions have no common base class.
    except Exception as error:
        raise UsageError(f"onnxruntime does not run it: {shorten(str(error), 300)}") from None
    return {
        n: r if isinstance(r, np.ndarray) else None for n, r in zip(names, results, strict=True)
    }


class OnnxTranslation:
    """The translation of one graph.

    Attributes:
        builder: The neutral graph so far.
        users: The nodes that use each value.
    """

    def __init__(self, proto: Any, label: str, arrays: Arrays, values: Mapping[str, Any]) -> None:
        self.proto, self.graph, self.values = proto, proto.graph, {**values, **arrays}
        numpy_helper = import_module("onnx").numpy_helper
        self.arrays = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.read = import_module("onnx").helper.get_attribute_value
        self.opset = {o.domain: o.version for o in proto.opset_import}.get("", 1)
        # Weights have several floats; other initializers are numbers of the graph.
        self.weights = {n for n, a in self.arrays.items() if a.dtype.kind == "f" and a.size > 1}
        self.weights |= single_weights(self.graph, self.arrays)
        self.values |= self.arrays
        self.known = {n for n in self.arrays if n not in self.weights}
        shapes = {n: (self.arrays[n].shape, True) for n in self.weights}
        self.builder = GraphBuilder(label, shapes)
        self.operands: dict[str, Operand] = {}
        # Weights and their transposed views: the weight, and the end of a rule of --map.
        self.views: dict[str, tuple[str, str]] = {n: (n, "") for n in self.weights}
        self.inputs = list(arrays)
        self.users: dict[str, list[Any]] = {}
        self.owners: dict[tuple[str, str], tuple[str, ...]] = {}
        self.done: set[int] = set()
        self.modules: dict[int, list[tuple[str, str]]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def run(self, outputs: Mapping[str, str]) -> TracedGraph:
        """Translate the nodes that the outputs depend on."""
        self.kept = list(outputs.values())
        needed = self._ancestors(self.kept)
        for name in self.inputs:
            attributes = {"name": clean(name)}
            self.operands[name] = self.builder.add("input", [], attributes, **self.about(name))
        nodes = [node for node in self.graph.node if not needed.isdisjoint(node.output)]
        self.modules = number_calls(nodes)
        for node in nodes:
            if id(node) not in self.done:
                self._translate(node)
        self.builder.graph["outputs"] = [[n, str(self.get(v))] for n, v in outputs.items()]
        return self.builder.graph

    def _ancestors(self, names: Sequence[str]) -> set[str]:
        producers = {n: node for node in self.graph.node for n in node.output if n}
        found, todo = set(names), list(names)
        while todo:
            node = producers.get(todo.pop())
            for name in () if node is None else node.input:
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return found

    def _translate(self, node: Any) -> None:
        used = [n for n in node.input if n]
        if node.op_type in SHAPES or (
            all(n in self.known for n in used) and not node.op_type.startswith("Random")
        ):
            array = self.values[node.output[0]]
            if array is not None and (array.dtype.kind != "f" or array.size == 1 or used):
                self.known.update(n for n in node.output if n)
                return
        rule: Rule | None = RULES.get(node.op_type) if node.domain in ("", "ai.onnx.ml") else None
        about = self.about(node.output[0], node)
        result = None if rule is None else rule(self, node, about)
        if result is None:
            result = self.unsupported(node, about)
        results = result if isinstance(result, list) else [result]
        self.operands.update((n, r) for n, r in zip(node.output, results, strict=False) if n)

    def unsupported(self, node: Any, about: Mapping[str, Any]) -> Operand:
        """Add a node for an operator without a rule."""
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        draws = node.op_type.startswith("Random")
        attributes = {"operator": name, "reason": "random numbers" if draws else ""}
        inputs = [self.get(n) for n in node.input if n and self.values.get(n) is not None]
        return self.builder.add("unsupported", inputs, attributes, **about)

    def about(self, name: str, node: Any = None) -> dict[str, Any]:
        """Return shape, kind, modules and place of a value, as :meth:`GraphBuilder.add` takes
        them."""
        array = self.values.get(name)
        shape = () if array is None else array.shape
        kind = "float" if array is None else KINDS.get(array.dtype.kind, "float")
        place = "" if node is None else f"node {node.name or node.output[0]}"
        modules = () if node is None else self.modules.get(id(node), [])
        return {"shape": shape, "kind": kind, "modules": modules, "place": place}

    def get(self, name: str) -> Operand:
        """Return the operand for a value of the graph: a node's name, or a number."""
        if name in self.operands:
            return self.operands[name]
        if name in self.views:
            weight, _ = self.views[name]
            made = self.builder.add("weight", [], {"name": weight}, **self.about(weight))
        else:
            array: Array = self.values[name]
            if array.size == 1 and array.ndim <= 1:
                return array.ravel()[0].item()
            made = self.builder.add("constant", [], {}, **self.about(name), values=array)
        self.operands[name] = made
        return made

    def number(self, name: str) -> Any:
        """Return the numbers of a value that depends on no input, as an array; None for others."""
        return self.values[name] if name in self.known else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value."""
        return tuple(self.values[name].shape)

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return the attributes of a node by name, texts as ``str``."""
        found = {a.name: self.read(a) for a in node.attribute}
        return {n: v.decode() if isinstance(v, bytes) else v for n, v in found.items()}

    def sole_user(self, name: str) -> Any:
        """Return the only node that uses a value, or None."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.kept else None

    def layer(
        self,
        layer: str,
        inputs: Sequence[Operand],
        settings: Mapping[str, Any],
        weights: Mapping[str, tuple[str, str]],
        about: Mapping[str, Any],
        channels: int = -1,
    ) -> str:
        """Add a call of a shipped layer.

        ``weights`` holds the name of the graph's weight for each parameter, and the end of a rule
        of ``--map``.
        """
        nodes = {n: (self.get(w), turn) for n, (w, turn) in weights.items()}
        name = self.builder.layer(layer, inputs, settings, nodes, about, channels)
        module = about["modules"][-1][0].partition("@")[0] if about["modules"] else ""
        parts = tuple(f"{w}{turn}" for w, turn in weights.values())
        # Layers with other weights need another owner.
        owners = [owner_of([w for w, _ in weights.values()]), module]
        fitting = [o for o in owners if o and self.owners.setdefault((o, layer), parts) == parts]
        self.builder.graph["nodes"][-1]["attributes"]["owner"] = next(iter(fitting), "")
        return name


def single_weights(graph: Any, arrays: Mapping[str, Array]) -> set[str]:
    """Return the initializers of one float that are a layer's weight, e.g. the bias of one unit."""
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in LAYERS or (node.op_type == "Add" and products & set(node.input)):
            found.update(n for n in node.input[node.op_type in LAYERS :] if n in arrays)
    return {n for n in found if arrays[n].ndim and arrays[n].dtype.kind == "f"}


def owner_of(weights: Sequence[str]) -> str:
    """Return the common start of names of weights: ``conv1`` for ``conv1_w_0`` and ``conv1_b_0``.
    Return an empty text for a weight that an exporter has named, e.g. ``onnx::Conv_193``."""
    names = [w.replace("/", "_").replace(":", "_") for w in weights]
    if not names or any("::" in w or COPY.search(w) for w in weights):
        return ""
    if all("." in n for n in names):
        first = names[0].rpartition(".")[0]
        return first if all(n.rpartition(".")[0] == first for n in names) else ""
    start = names[0]
    while not all(n.startswith(start) for n in names):
        start = start[:-1]
    if len(set(names)) == 1:
        start = re.sub(r"_(w|weight|kernel|scale|s)(_\d+)?$", "", start)
    return re.sub(r"_+(bn|b|w)?$", "", start)


def number_calls(nodes: Sequence[Any]) -> dict[int, list[tuple[str, str]]]:
    """Return the modules around each node, by the node's ``id``.

    A module without inner modules that is called again has the number of its call in its path:
    ``layer1.0.relu@1``.
    """
    found = {id(node): modules_of(node) for node in nodes}
    outer = {path for modules in found.values() for path, _ in modules[:-1]}
    calls: dict[str, int] = {}
    last = ""
    for modules in found.values():
        path, kind = modules[-1] if modules else ("", "")
        if path and path not in outer:
            calls[path] = calls.get(path, -1) + (path != last)
            if calls[path]:
                modules[-1] = (f"{path}@{calls[path]}", kind)
        last = path
    return found
