"""Trace a Keras model: translate its layers into a neutral graph.

Each layer runs once on arrays, which gives the shapes. :mod:`harness.runtime.own_model.graph`
defines the operators of the neutral graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.extend import UsageError
from harness.extend.models import GraphBuilder, Operand, TracedGraph

from . import trace_attention, trace_images, trace_recurrent  # noqa: F401 (register rules)
from .call_graph import functional, graph_of_call, nodes_of, takes_training
from .layer_names import attribute_paths, variable_paths
from .trace_operations import OPERATIONS
from .trace_rules import RULES, masks_of

# The start of the names of all layers of a block, in models with one flat list of layers.
BLOCK = re.compile(r"(.*?block_?\d+[a-z]?)_")
# The layers whose rules read a mask, or that ignore it.
MASKED = {
    *("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"),
    *("TimeDistributed", "GlobalAveragePooling1D", "MultiHeadAttention"),
}
# The names of axes of unknown length, for arrays and for images.
AXES = {4: ("batch", "rows", "columns", "channels")}
USUAL = ("batch", "time", "features")


def declarations(model: Any) -> dict[str, str]:
    """Return the declaration of each input, as :mod:`harness.porting.inputs` reads it; an empty
    dictionary for a model without symbolic inputs."""
    by_input = {}
    for tensor in getattr(functional(model), "inputs", None) or ():
        names = AXES.get(len(tensor.shape), USUAL)
        lengths = [str(n or names[min(k, len(names) - 1)]) for k, n in enumerate(tensor.shape)]
        below = "" if "float" in tensor.dtype else f":{_below(model, tensor)}"
        by_input[tensor.name] = f"{','.join(lengths)}{below}"
    return by_input


def _below(model: Any, tensor: Any) -> int:
    """Return the number of rows of the embedding that reads an input; 2 if there is none."""
    for node in nodes_of(functional(model)):
        if any(t is tensor for t in node.input_tensors) and hasattr(node.operation, "input_dim"):
            return int(node.operation.input_dim)
    return 2


def operators() -> list[str]:
    """Return the names of the layers and operations that have a rule, e.g. ``ops.Add``."""
    return [*RULES, *(f"ops.{name}" for name in OPERATIONS)]


def trace_model(
    model: Any, keras: Any, label: str, variables: Mapping[str, Any], arrays: Mapping[str, Any]
) -> TracedGraph:
    """Return the graph of one forward pass in training mode.

    Args:
        model: The model.
        keras: The module ``keras``.
        label: The model's description.
        variables: The model's variables by name.
        arrays: The tensor of each input name.

    Raises:
        UsageError: the model has other inputs.
    """
    translation = KerasTranslation(keras, label, variables, attribute_paths(model))
    graph = functional(model)
    if not hasattr(graph, "_nodes_by_depth"):
        # Keras also trains a model in evaluation mode if its call has no argument training.
        if not takes_training(model):
            translation.training = False
            translation.builder.graph["remarks"].append(
                "call has no argument training, so Keras trains the model in evaluation mode: "
                "without dropout, and with moving statistics"
            )
        graph = translation.graph_of_call(model, (), arrays)
    names = [tensor.name for tensor in graph.inputs]
    if set(names) != set(arrays):
        raise UsageError(
            f"--input names {', '.join(arrays)}, but the model has the inputs "
            f"{', '.join(f'{n}={lengths}' for n, lengths in declarations(model).items())}"
        )
    traced = translation.run(graph, arrays)
    for layer, path in variable_paths(model, variables).items():
        if (own := translation.paths.get(layer, path)) != path:
            traced["names"][path] = own
    return traced


class KerasTranslation:
    """The translation of one model.

    Attributes:
        paths: The path of attributes of each layer, by ``id``; see :func:`attribute_paths`.
        builder: The neutral graph so far.
        operands: The operand of each symbolic tensor, by ``id``.
        tensors: The array of each symbolic tensor, by ``id``.
        training: Whether calls are in training mode; None if each call has an argument for it.
    """

    def __init__(
        self, keras: Any, label: str, variables: Mapping[str, Any], paths: Mapping[int, str]
    ) -> None:
        self.keras, self.paths = keras, paths
        self.calls: Counter[int] = Counter()
        self.names = {id(v): name for name, v in variables.items()}
        shapes = {n: (tuple(v.shape), bool(v.trainable)) for n, v in variables.items()}
        self.builder = GraphBuilder(label, shapes)
        self.operands: dict[int, Operand] = {}
        self.tensors: dict[int, Any] = {}
        self.weights: dict[str, str] = {}
        self.modules: list[tuple[str, str]] = []
        self.training: bool | None = True

    def run(self, graph: Any, arrays: Mapping[str, Any]) -> TracedGraph:
        """Translate the whole model."""
        for symbol in graph.inputs:
            tensor = arrays[symbol.name]
            about = self.about(tensor, "")
            operand = self.builder.add("input", [], {"name": symbol.name}, **about)
            if symbol.dtype == "bool" and about["kind"] == "index":
                # A spec has integers for a mask.
                operand = self.builder.node("!=", [operand, 0], about, kind="boolean")
                tensor = self.keras.ops.cast(tensor, "bool")
            self.operands[id(symbol)], self.tensors[id(symbol)] = operand, tensor
        self.translate(graph)
        results = self.keras.tree.flatten(graph.outputs)
        names = ["y"] if len(results) == 1 else [f"y_{n}" for n in range(1, len(results) + 1)]
        keys = list(graph.output) if isinstance(getattr(graph, "output", None), Mapping) else names
        self.builder.graph["outputs"] = [
            [str(name), str(self.operands[id(r)])] for name, r in zip(keys, results, strict=True)
        ]
        return self.builder.graph

    def translate(self, graph: Any) -> None:
        """Translate the calls of a model whose inputs have operands."""
        for node in nodes_of(graph):
            self._call(node)

    def graph_of_call(
        self, layer: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """Return the graph of a model or layer that has a method ``call`` of its own."""
        training = self.training is not False
        graph, same = graph_of_call(self.keras, layer, arguments, keywords, training)
        if training and not same:
            self.builder.graph["remarks"].append(
                f"in training mode {type(layer).__name__} has other operators; the spec has those "
                "of evaluation mode"
            )
        # Batch norms have moving statistics also if the graph is that of evaluation mode.
        self.training = None if same else training
        return graph

    def in_training(self, node: Any) -> bool:
        """Return whether a call is in training mode when the model is."""
        if self.training is not None:
            return self.training
        return node.arguments.kwargs.get("training") is not False

    def _call(self, node: Any) -> None:
        layer, before = node.operation, list(self.modules)
        mode = self.training
        kind = type(layer).__name__
        symbols = self.keras.tree.flatten(node.outputs)
        inner = functional(layer)
        arguments, keywords = node.arguments.fill_in(self.tensors)
        is_graph = hasattr(inner, "_nodes_by_depth")
        has_own_call = not is_graph and kind not in RULES and getattr(layer, "_layers", None)
        if is_graph or has_own_call:
            self.training = self.in_training(node)
            if has_own_call:
                inner = self.graph_of_call(layer, arguments, keywords)
            self._nested(node, layer, inner, symbols)
            self.training = mode
            return
        block = BLOCK.match(layer.name)
        if block is not None:
            self.modules = [*before, (block[1], "Block")]
        elif isinstance(layer, self.keras.layers.Dropout):
            path = self._path(layer)
            self.modules = [*before, (path, "Dropout")]
            self.builder.graph["names"][path] = self.paths.get(id(layer), path)
        # In training mode, a call would update moving statistics.
        if "training" in keywords:
            keywords["training"] = False
        results = self.keras.tree.flatten(layer(*arguments, **keywords))
        inputs = [self.operands[id(t)] for t in node.input_tensors]
        is_layer = isinstance(layer, self.keras.layers.Layer)
        named = f"layer {layer.name}" if is_layer or not node.place else ""
        about = self.about(results[0], ", ".join(filter(None, (node.place, named))))
        rules = RULES if is_layer else OPERATIONS
        rule = rules.get(kind)
        masks = masks_of(node) if kind not in MASKED else []
        operands = None if rule is None or masks else rule(self, node, inputs, about)
        if operands is None:
            reason = "with a mask" if masks else "with these settings" if rule else ""
            name = f"{type(layer).__module__.partition('.')[0]}.{kind}"
            refused = {"operator": name, "reason": reason}
            operands = self.builder.add("unsupported", inputs, refused, **about)
        every = operands if isinstance(operands, list) else [operands] * len(symbols)
        for symbol, result, operand in zip(symbols, results, every, strict=True):
            self.tensors[id(symbol)], self.operands[id(symbol)] = result, operand
        self.modules = before

    def _nested(self, node: Any, layer: Any, inner: Any, symbols: Sequence[Any]) -> None:
        """Translate a model that is a layer of the model."""
        for symbol, source in zip(inner.inputs, node.input_tensors, strict=True):
            self.operands[id(symbol)] = self.operands[id(source)]
            self.tensors[id(symbol)] = self.tensors[id(source)]
        before = self.modules
        count = self.calls[id(layer)]
        self.calls[id(layer)] += 1
        path = self._path(layer) + (f"@{count}" if count else "")
        self.modules = [*before, (path, type(layer).__name__)]
        self.translate(inner)
        self.modules = before
        for symbol, source in zip(symbols, self.keras.tree.flatten(inner.outputs), strict=True):
            self.operands[id(symbol)] = self.operands[id(source)]
            self.tensors[id(symbol)] = self.tensors[id(source)]

    def _path(self, layer: Any) -> str:
        """Return the path of a layer inside of the current module."""
        return ".".join([*(path.split("@")[0] for path, _ in self.modules[-1:]), layer.name])

    def tensors_of(self, symbol: Any) -> Any:
        """Return the array of a symbolic tensor."""
        return self.tensors[id(symbol)]

    def operand(self, value: Any) -> Operand | None:
        """Return the operand of a tensor or number; None for another value. A tensor that depends
        on no input is a variable of the model or an array of constants."""
        if isinstance(value, int | float):
            return value
        if id(value) in self.operands:
            return self.operands[id(value)]
        if id(value) in self.names:
            return self.weight(value)
        if not hasattr(value, "shape"):
            return None
        array = self.keras.ops.convert_to_numpy(value)
        return self.builder.add("constant", [], {}, **self.about(value, ""), values=array)

    def about(self, tensor: Any, place: str) -> dict[str, Any]:
        """Return shape, kind, modules and place of a tensor, as :meth:`GraphBuilder.add` takes
        them."""
        dtype = self.keras.backend.standardize_dtype(tensor.dtype)
        kind = "float" if "float" in dtype else "boolean" if dtype == "bool" else "index"
        shape = tuple(int(n) for n in tensor.shape)
        return {"shape": shape, "kind": kind, "modules": tuple(self.modules), "place": place}

    def weight(self, variable: Any) -> str:
        """Return the node of a variable."""
        name = self.names[id(variable)]
        if name not in self.weights:
            shape = tuple(variable.shape)
            self.weights[name] = self.builder.add("weight", [], {"name": name}, shape=shape)
        return self.weights[name]

    def layer(
        self,
        layer: str,
        inputs: Sequence[Operand],
        settings: Mapping[str, Any],
        weights: Mapping[str, Any],
        about: Mapping[str, Any],
        channels: int = -1,
    ) -> str:
        """Add a call of a shipped layer. ``weights`` holds the variable of each parameter, or the
        variable and the end of a rule of ``--map``."""
        pairs = {n: w if isinstance(w, tuple) else (w, "") for n, w in weights.items()}
        nodes = {n: (self.weight(v), turn) for n, (v, turn) in pairs.items()}
        return self.builder.layer(layer, inputs, settings, nodes, about, channels)
