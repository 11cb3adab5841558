"""The attention that the Keras backend claims: ``keras.layers.MultiHeadAttention``.

``grouped_attention`` turns its queries and keys by their places, which
``keras.layers.GroupQueryAttention`` does not: that is not claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.extend import ClaimableCall, Packing, Part, Piece, Tensors

KIND = "MultiHeadAttention"
# The layers that it is made of, by their names in it and the letter of their parameters.
PARTS: Mapping[str, tuple[str, str]] = {
    "query": ("query_dense", "q"),
    "key": ("key_dense", "k"),
    "value": ("value_dense", "v"),
    "attention_output": ("output_dense", "o"),
}
# What the layer is told when it is called, from what it is given; of Keras' ops.
ATTENTION: Mapping[str, Callable[[Any, Tensors], Mapping[str, Any]]] = {
    "causal_attention": lambda ops, values: {"use_causal_mask": True},
    "self_attention": lambda ops, values: {},
    "masked_attention": lambda ops, values: {"attention_mask": ops.expand_dims(values["mask"], 1)},
}


def arguments(layer: ClaimableCall) -> dict[str, Any]:
    """Arguments of the class."""
    return {"num_heads": layer.attributes["heads"], "key_dim": layer.attributes["head"]}


def packing(layer: ClaimableCall) -> Packing:
    """Each head has an axis of its own in what the result is not made of."""
    heads = (layer.attributes["heads"], layer.attributes["head"])
    features, _ = layer.shapes["W_q"]
    pieces: dict[str, Piece] = {}
    for part, (_, letter) in PARTS.items():
        last = letter == "o"
        kernel = (*heads, features) if last else (features, *heads)
        pieces[f"{part}.kernel"] = Part(f"W_{letter}", shape=kernel)
        pieces[f"{part}.bias"] = Part(f"b_{letter}", shape=(features,) if last else heads)
    return Packing(pieces)


def parts_of(layer: Any) -> dict[str, Any]:
    """The layers that attention is made of, by the names in its packing."""
    return {part: getattr(layer, name) for part, (name, _) in PARTS.items()}
