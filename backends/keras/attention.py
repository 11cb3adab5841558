"""Attention layers that the Keras backends run with ``keras.layers.MultiHeadAttention``.

``grouped_attention`` runs as equations, because it rotates queries and keys by position, and
``keras.layers.GroupQueryAttention`` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.extend import ClaimableCall, Packing, Part, Piece, Tensors

KIND = "MultiHeadAttention"
# Each inner layer of an attention: its attribute in Keras, and the letter in the names of its
# parameters.
PARTS: Mapping[str, tuple[str, str]] = {
    "query": ("query_dense", "q"),
    "key": ("key_dense", "k"),
    "value": ("value_dense", "v"),
    "attention_output": ("output_dense", "o"),
}
# Functions that return extra arguments of a call from ``keras.ops`` and the layer's inputs.
ATTENTION: Mapping[str, Callable[[Any, Tensors], Mapping[str, Any]]] = {
    "causal_attention": lambda ops, values: {"use_causal_mask": True},
    "self_attention": lambda ops, values: {},
    "cross_attention": lambda ops, values: {},
    "masked_attention": lambda ops, values: {"attention_mask": ops.expand_dims(values["mask"], 1)},
}


def arguments(layer: ClaimableCall) -> dict[str, Any] | None:
    """Return the arguments with which the constructor of ``keras.layers.MultiHeadAttention`` makes
    a layer equal to the spec's layer. Return None if the layer has noise, as Keras draws its own,
    only some of the biases, or 0 for an empty mask."""
    attributes, biased = layer.attributes, {f"b_{letter}" in layer.shapes for letter in "qkvo"}
    if attributes["keep"] != 1 or len(biased) > 1 or attributes.get("zero_if_empty"):
        return None
    return {
        "num_heads": attributes["heads"],
        "key_dim": attributes["head"],
        "use_bias": True in biased,
    }


def packing(layer: ClaimableCall) -> Packing:
    """Return how Keras' variables correspond to the spec's parameters. In Keras, heads are a
    separate axis, except in the output bias."""
    heads = (layer.attributes["heads"], layer.attributes["head"])
    pieces: dict[str, Piece] = {}
    for part, (_, letter) in PARTS.items():
        before, after = layer.shapes[f"W_{letter}"]
        last = letter == "o"
        kernel = (*heads, after) if last else (before, *heads)
        pieces[f"{part}.kernel"] = Part(f"W_{letter}", shape=kernel)
        if f"b_{letter}" in layer.shapes:
            pieces[f"{part}.bias"] = Part(f"b_{letter}", shape=(after,) if last else heads)
    return Packing(pieces)


def parts_of(layer: Any) -> dict[str, Any]:
    """Return the inner layers of an attention layer, e.g. the dense layer for the queries, by the
    names that :func:`packing` uses."""
    return {part: getattr(layer, name) for part, (name, _) in PARTS.items()}
