"""The graph of a user's Keras model or layer that has a method ``call`` of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.extend.models import current_place, parameters_of


def functional(model: Any) -> Any:
    """Return the graph of layers of a Sequential model, else the model itself."""
    return getattr(model, "_functional", None) or model


def record_places(keras: Any) -> None:
    """Store the user's line of each call on symbolic tensors in its node, as ``place``."""
    node = keras.src.ops.node.Node
    if hasattr(node, "place"):
        return
    own_init = node.__init__

    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        own_init(self, *arguments, **keywords)
        self.place = current_place()

    node.place, node.__init__ = "", init


def takes_training(layer: Any) -> bool:
    """Return whether the method ``call`` of a model or layer has an argument for the mode."""
    parameters = parameters_of(layer.call)
    variadic = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return variadic or "training" in parameters


def nodes_of(graph: Any) -> list[Any]:
    """Return the calls of layers and operations in a graph, in the order of execution."""
    every = graph._nodes_by_depth
    nodes = [node for depth in sorted(every, reverse=True) for node in every[depth]]
    return [n for n in nodes if not n.is_input and type(n.operation).__name__ != "InputLayer"]


def graph_of_call(
    keras: Any,
    layer: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    training: bool,
) -> tuple[Any, bool]:
    """Return the graph of a call of a model or layer: the layers and operations that ``call`` runs
    on symbolic tensors. Tensors in the arguments become its inputs.

    Return also whether the graph is that of training mode. It is that of evaluation mode if
    ``training`` is false, or if the operations of the modes differ.
    """
    evaluation = _symbolic_call(keras, layer, arguments, keywords, False)
    if not training:
        return evaluation, False
    try:
        trained = _symbolic_call(keras, layer, arguments, keywords, True)
    # Symbolic tensors cannot take the random numbers of training mode; each engine raises its own
    # exception.
    except Exception:
        return evaluation, False
    kinds, others = ([type(n.operation) for n in nodes_of(g)] for g in (trained, evaluation))
    return (trained, True) if kinds == others else (evaluation, False)


def _symbolic_call(
    keras: Any, layer: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], training: bool
) -> Any:
    symbols: list[Any] = []

    def symbol(value: Any, name: str | None = None) -> Any:
        if not hasattr(value, "shape"):
            return value
        dtype = keras.backend.standardize_dtype(value.dtype)
        symbols.append(keras.Input(batch_shape=tuple(value.shape), dtype=dtype, name=name))
        return symbols[-1]

    for part in layer._flatten_layers(include_self=False):
        # A Sequential model accepts symbolic tensors only of the lengths of its first call.
        for tensor in getattr(functional(part), "_inputs", ()):
            tensor._shape = (*[None] * (len(tensor.shape) - 1), *tensor.shape[-1:])
    positional = keras.tree.map_structure(symbol, list(arguments))
    named = {n: symbol(v, n) for n, v in keywords.items()}
    if takes_training(layer):
        named["training"] = training
    # The mode of the layers inside, as in a call of the layer.
    layer._get_call_context().set_value("training", training)
    try:
        return keras.Model(symbols, layer.call(*positional, **named))
    finally:
        layer._maybe_reset_call_context()
