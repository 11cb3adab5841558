"""Layers in plain JAX, as functions of their parameters, and the parameters as they take them.

Sequences are [time, batch, features]. The gates of a cell are fused. Input products stay in the
scan: XLA's CPU code is faster so than with one large product before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Arrays = Mapping[str, Any]


def dense(p: Arrays, x: jax.Array) -> jax.Array:
    return x @ p["W"] + p["b"]


def embedding(p: Arrays, indices: jax.Array) -> jax.Array:
    return p["table"][indices]


def time_major(x: jax.Array) -> jax.Array:
    """[batch, time, ...] as [time, batch, ...], and back; what has no time stays."""
    return x.swapaxes(0, 1) if x.ndim > 1 else x


def zeros(p: Arrays, x: jax.Array) -> jax.Array:
    """The first state of a recurrent layer."""
    return jnp.zeros((x.shape[1], p["U"].shape[0]), x.dtype)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    return jnp.clip(0.2 * x + 0.5, 0, 1)


def rnn(p: Arrays, x: jax.Array, h: jax.Array) -> jax.Array:
    biases = [p[name] for name in ("b", "c") if name in p]

    def cell(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jax.nn.relu(sum(biases, x_t @ p["W"] + h @ p["U"]))
        return h, h

    return jax.lax.scan(cell, h, x)[1]


def gru(p: Arrays, x: jax.Array, h: jax.Array, activation: Any, gate: Any) -> jax.Array:
    """Reset before the product. Columns of ``W`` and ``b``: z, r, n; of ``U_zr``: z, r."""

    def cell(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_zr, x_n = jnp.split(dense(p, x_t), [2 * h.shape[-1]], axis=-1)
        z, r = jnp.split(gate(x_zr + h @ p["U_zr"]), 2, axis=-1)
        n = activation(x_n + (h * r) @ p["U"])
        h = z * h + (1 - z) * n
        return h, h

    return jax.lax.scan(cell, h, x)[1]


def gru_after(p: Arrays, x: jax.Array, h: jax.Array) -> jax.Array:
    """Reset after the product. Columns of ``W``, ``U``, ``b`` and ``c``: z, r, n."""

    def cell(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        split = [2 * h.shape[-1]]
        x_zr, x_n = jnp.split(dense(p, x_t), split, axis=-1)
        h_zr, h_n = jnp.split(h @ p["U"] + p["c"], split, axis=-1)
        z, r = jnp.split(jax.nn.sigmoid(x_zr + h_zr), 2, axis=-1)
        n = jnp.tanh(x_n + r * h_n)
        h = z * h + (1 - z) * n
        return h, h

    return jax.lax.scan(cell, h, x)[1]


def lstm_step(
    p: Arrays, x_t: jax.Array, h: jax.Array, c: jax.Array, gate: Any
) -> tuple[jax.Array, jax.Array]:
    """The next ``h`` and ``c``, by one product of input and state side by side. Columns of ``W``
    and ``b``: i, f, o, g."""
    i, f, o, g = jnp.split(dense(p, jnp.concatenate([x_t, h], axis=-1)), 4, axis=-1)
    c = gate(f) * c + gate(i) * jnp.tanh(g)
    return gate(o) * jnp.tanh(c), c


def lstm(
    p: Arrays, x: jax.Array, state: tuple[jax.Array, jax.Array], gate: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """All steps, and the last state; ``state`` is h and c."""

    def cell(
        state: tuple[jax.Array, jax.Array], x_t: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h, c = lstm_step(p, x_t, *state, gate)
        return (h, c), h

    state, states = jax.lax.scan(cell, state, x)
    return states, state


def masked_lstm(p: Arrays, x: jax.Array, kept: jax.Array, start: jax.Array) -> jax.Array:
    """An LSTM from zeros whose states stay where ``kept`` is false; there, its output is 0."""

    def cell(
        state: tuple[jax.Array, jax.Array], each: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        (h, c), (x_t, inside) = state, each
        next_h, next_c = lstm_step(p, x_t, h, c, jax.nn.sigmoid)
        h, c = jnp.where(inside, next_h, h), jnp.where(inside, next_c, c)
        return (h, c), jnp.where(inside, h, 0)

    return jax.lax.scan(cell, (start, start), (x, kept))[1]


def not_ended(rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """[batch, time]: where a row has not ended."""
    return jnp.arange(rows.shape[1]) < lengths[:, None]


def mean_of(kept: jax.Array, logits: jax.Array, target: jax.Array) -> jax.Array:
    """The mean of the cross-entropy over what is kept, 0 if that is nothing."""
    weights = kept.astype(logits.dtype)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return jnp.sum(weights * entropy) / jnp.maximum(jnp.sum(weights), 1)


def batch_norm(
    p: Arrays, x: jax.Array, moving: tuple[jax.Array, jax.Array], training: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Over batch and time, with Keras' constants; ``moving``: mean and variance."""
    mean, variance = moving
    if training:
        mean, variance = x.mean((0, 1)), x.var((0, 1))
        moving = (0.99 * moving[0] + 0.01 * mean, 0.99 * moving[1] + 0.01 * variance)
    return p["gamma"] * (x - mean) * jax.lax.rsqrt(variance + 1e-3) + p["beta"], moving


def tree(parameters: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Parameters by layer, the gates of a recurrent layer side by side."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in parameters.items():
        layer, _, local = name.partition(".")
        found.setdefault(layer, {})[local] = array
    for layer, fused in (("lstm", lstm_tree), ("gru", gru_tree)):
        if layer in found:
            found[layer] = fused(found[layer])
    return found


def lstm_tree(p: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    w, u, b = (np.concatenate([p[f"{k}_{g}"] for g in "ifog"], axis=-1) for k in "WUb")
    return {"W": np.concatenate([w, u]), "b": b}


def gru_tree(p: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "c_z" in p:
        return {k: np.concatenate([p[f"{k}_{g}"] for g in "zrn"], axis=-1) for k in "WUbc"}
    if "K_z" in p:  # the rows of the state over those of the input
        units = p["K_z"].shape[1]
        halves = {g: (p[f"K_{g}"][units:], p[f"K_{g}"][:units]) for g in "zrn"}
    else:
        halves = {g: (p[f"W_{g}"], p[f"U_{g}"]) for g in "zrn"}
    return {
        "W": np.concatenate([halves[g][0] for g in "zrn"], axis=-1),
        "b": np.concatenate([p[f"b_{g}"] for g in "zrn"]),
        "U_zr": np.concatenate([halves[g][1] for g in "zr"], axis=-1),
        "U": halves["n"][1],
    }
