"""Attention layers that the jax backend claims: JAX's fused attention between own projections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Piece, Tensors

Array = Any
# A function that returns the mask arguments of jax.nn.dot_product_attention from a layer's inputs.
Seen = Callable[[Tensors], Mapping[str, Any]]
LABEL = "jax.nn.dot_product_attention"
_CAUSAL = {"is_causal": True}


def _mask(values: Tensors) -> Mapping[str, Any]:
    return {"mask": values["mask"][:, None, None, :]}


def _of(seen: Seen) -> Callable[[ClaimableCall], Native]:
    """Return the claim of an attention layer that has one projection for q, k and v together."""

    def claim(layer: ClaimableCall) -> Native:
        heads = layer.attributes["heads"]

        def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
            x = values["x"]
            # Convert to the dtype of the products, because the bias may have a wider dtype.
            three = (x @ packed["W_qkv"] + packed["b_qkv"]).astype(x.dtype)
            # [batch, time, 3 * heads * head] -> three of [batch, time, heads, head]
            split = three.reshape(*x.shape[:2], 3, heads, -1)
            parts = (split[:, :, number] for number in range(3))
            y = jax.nn.dot_product_attention(*parts, **seen(values))
            return [y.reshape(*x.shape[:2], -1) @ packed["W_o"] + packed["b_o"]]

        pieces: dict[str, Piece] = {
            "W_qkv": Join(tuple(Part(f"W_{name}") for name in "qkv"), 1),
            "b_qkv": Join(tuple(Part(f"b_{name}") for name in "qkv"), 0),
            "W_o": Part("W_o"),
            "b_o": Part("b_o"),
        }
        return Native(LABEL, run, Packing(pieces))

    return claim


def _turned(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the halves of x [batch, time, heads, 2 * half] by angles [time, 1, half]."""
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _grouped_attention(layer: ClaimableCall) -> Native:
    """Return the claim of grouped attention. JAX itself repeats the keys and values of a group."""
    groups, each, half, base = (layer.attributes[n] for n in ("groups", "each", "half", "base"))

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        x = values["x"]
        # The angles are always in float32, even if products have a narrower dtype.
        places, pairs = (jnp.arange(n, dtype=jnp.float32) for n in (x.shape[1], half))
        turn = places[:, None, None] * base ** (-pairs / half)
        cos, sin = jnp.cos(turn).astype(x.dtype), jnp.sin(turn).astype(x.dtype)
        three = (x @ packed["qkv"]).reshape(*x.shape[:2], -1, 2 * half)
        q, k, v = jnp.split(three, (groups * each, groups * (each + 1)), 2)
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        y = jax.nn.dot_product_attention(q, k, v, **_CAUSAL)
        return [y.reshape(*x.shape[:2], -1) @ packed["o"]]

    pieces: dict[str, Piece] = {
        "qkv": Join(tuple(Part(f"W_{name}") for name in "qkv"), 1),
        "o": Part("W_o"),
    }
    return Native(LABEL, run, Packing(pieces))


ATTENTION: Mapping[str, Callable[[ClaimableCall], Native]] = {
    "causal_attention": _of(lambda _: _CAUSAL),
    "self_attention": _of(lambda _: {}),
    "masked_attention": _of(_mask),
    "grouped_attention": _grouped_attention,
}
