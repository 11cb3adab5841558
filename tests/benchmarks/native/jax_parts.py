"""Parts of the JAX models, as functions of their parameters. Images have channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax_layers import Arrays

Statistics = Any
NHWC = ("NHWC", "HWIO", "NHWC")


def nested(arrays: Arrays) -> dict[str, Any]:
    """Arrays of dotted names as a tree; queries, keys and values of attention side by side."""
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return _side_by_side(found)


def _side_by_side(tree: dict[str, Any]) -> dict[str, Any]:
    if "W_q" in tree:
        for kind in "Wb":
            each = [tree.pop(f"{kind}_{name}") for name in "qkv" if f"{kind}_{name}" in tree]
            if each:
                tree[f"{kind}_qkv"] = np.concatenate(each, -1)
        return tree
    return {n: _side_by_side(t) if isinstance(t, dict) else t for n, t in tree.items()}


def repeated(tree: Mapping[str, Any]) -> list[Any]:
    """The parts of a repeated layer, in their order."""
    return [tree[name] for name in sorted(tree, key=int)]


def linear(p: Arrays, x: jax.Array) -> jax.Array:
    """A dense layer without a bias."""
    return x @ p["W"]


def layer_norm(p: Arrays, x: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, epsilon=1e-5) * p["gamma"] + p["beta"]


def rms_norm(p: Arrays, x: jax.Array) -> jax.Array:
    return x * lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6) * p["gamma"]


def attention(
    p: Arrays, x: jax.Array, heads: int, causal: bool, mask: jax.Array | None = None
) -> jax.Array:
    """Self-attention, whose first three products are one."""
    batch, time, _ = x.shape
    three = (x @ p["W_qkv"] + p["b_qkv"]).reshape(batch, time, 3, heads, -1)
    q, k, v = (three[:, :, n] for n in range(3))
    y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
    return y.reshape(batch, time, -1) @ p["W_o"] + p["b_o"]


def conv(p: Arrays, x: jax.Array, padding: int = 0, stride: int = 1) -> jax.Array:
    """A convolution, with a bias where it has one."""
    strides, pads = (stride, stride), [(padding, padding)] * 2
    y = lax.conv_general_dilated(x, p["W"], strides, pads, dimension_numbers=NHWC)
    return y + p["b"] if "b" in p else y


def conv_transpose(p: Arrays, x: jax.Array, stride: int) -> jax.Array:
    """The transpose of a convolution."""
    strides = (stride, stride)
    y = lax.conv_transpose(
        x, p["W"], strides, "VALID", dimension_numbers=NHWC, transpose_kernel=True
    )
    return y + p["b"]


def avg_pool(x: jax.Array, window: int) -> jax.Array:
    sizes = (1, window, window, 1)
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, sizes, sizes, "VALID") / window**2


def max_pool(x: jax.Array, window: int, stride: int = 0, padding: int = 0) -> jax.Array:
    """The largest entry of each window; without a stride, windows lie side by side."""
    least, (sizes, strides) = np.array(-np.inf, x.dtype), ((1, n, n, 1) for n in (window, stride))
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, least, lax.max, sizes, strides if stride else sizes, pads)


def batch_norm(
    p: Arrays, s: Statistics, x: jax.Array, training: bool, epsilon: float = 1e-3, ddof: int = 0
) -> tuple[jax.Array, Any]:
    """Over all but the channels; the new moving statistics."""
    mean, variance = s["moving_mean"], s["moving_variance"]
    if training:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        s = {
            "moving_mean": 0.9 * s["moving_mean"] + 0.1 * mean,
            "moving_variance": 0.9 * s["moving_variance"] + 0.1 * variance * count / (count - ddof),
        }
    return p["gamma"] * (x - mean) * lax.rsqrt(variance + epsilon) + p["beta"], s
