"""What the jax backend claims: JAX's own attention, convolutions and pools, and optax's losses.

JAX has no other layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Piece, Tensors, narrow

from .images import IMAGES

# Our loss -> optax's, and the roles that it takes in order.
LOSSES: Mapping[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "cross_entropy": (optax.softmax_cross_entropy, ("logits", "target")),
    "sparse_cross_entropy": (
        optax.softmax_cross_entropy_with_integer_labels,
        ("logits", "target"),
    ),
    "squared_error": (optax.squared_error, ("prediction", "target")),
}


def claim(layer: ClaimableCall, dtype: str) -> Native | None:
    """What JAX or optax has for a layer or a loss, if it computes it in ``dtype``."""
    if layer.definition in LOSSES:
        return _loss(*LOSSES[layer.definition])
    native = None
    if layer.definition in IMAGES:
        native = IMAGES[layer.definition](layer)
    # The softmax of its attention is float32's in any dtype.
    if layer.definition == "causal_attention" and dtype != "float64":
        native = _causal_attention(layer)
    products = narrow(dtype)
    return _cast(native, products) if native and products and layer.shapes else native


def _cast(native: Native, dtype: str) -> Native:
    """A layer with parameters in a narrow dtype, by the casts that models in JAX have."""

    def cast(tensors: Tensors) -> Tensors:
        floats = {n for n, t in tensors.items() if jnp.issubdtype(t.dtype, jnp.floating)}
        return {n: t.astype(dtype) if n in floats else t for n, t in tensors.items()}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [made.astype(jnp.float32) for made in native.run(cast(values), cast(packed))]

    return replace(native, label=f"{native.label} ({dtype})", run=run)


def _loss(loss: Callable[..., Any], roles: Sequence[str]) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return (loss(*(values[role] for role in roles)),)

    return Native(f"optax.{loss.__name__}", run, Packing({}))


def _causal_attention(layer: ClaimableCall) -> Native:
    """Between products of its own, the first three of them as one."""
    heads = layer.attributes["heads"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        x = values["x"]
        three = x @ packed["W_qkv"] + packed["b_qkv"]
        # [batch, time, 3 * heads * head] -> three of [batch, time, heads, head]
        split = three.reshape(*x.shape[:2], 3, heads, -1)
        parts = (split[:, :, number] for number in range(3))
        y = jax.nn.dot_product_attention(*parts, is_causal=True)
        return [y.reshape(*x.shape[:2], -1) @ packed["W_o"] + packed["b_o"]]

    pieces: dict[str, Piece] = {
        "W_qkv": Join(tuple(Part(f"W_{name}") for name in "qkv"), 1),
        "b_qkv": Join(tuple(Part(f"b_{name}") for name in "qkv"), 0),
        "W_o": Part("W_o"),
        "b_o": Part("b_o"),
    }
    return Native("jax.nn.dot_product_attention", run, Packing(pieces))
