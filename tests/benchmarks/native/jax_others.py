"""The JAX models without attention or images: mlp, vae, dlrm, gcn, taggers, readers, mamba."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax_layers import (
    Arrays,
    dense,
    embedding,
    gru_after,
    gru_tree,
    lstm,
    lstm_tree,
    masked_lstm,
    mean_of,
    not_ended,
    time_major,
    zeros,
)
from jax_parts import linear, nested, repeated, rms_norm

Sizes = Mapping[str, int]
gelu = partial(jax.nn.gelu, approximate=False)


def mlp(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedding(p["embed"], inputs["chars"])
    x = gelu(dense(p["first"], x.reshape(len(x), -1)))
    for own in repeated(p["hidden_layers"]):
        x = gelu(dense(own, x))
    return dense(p["out"], x)


def encoded(p: Arrays, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log of the variance of the code."""
    h = jnp.tanh(dense(p["encoder"], x))
    return dense(p["center"], h), dense(p["log_variance"], h)


def decoded(p: Arrays, z: jax.Array) -> jax.Array:
    """Logits of an image."""
    return dense(p["out"], jnp.tanh(dense(p["decoder"], z)))


def vae(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    return decoded(p, encoded(p, inputs["x"])[0])


def vae_loss(p: Arrays, inputs: Arrays) -> jax.Array:
    """With the noise that comes with the batch, for all sides alike."""
    x = inputs["x"]
    mu, spread = encoded(p, x)
    logits = decoded(p, mu + jnp.exp(0.5 * spread) * inputs["sample.unit"])
    rebuilt = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
    divergence = -0.5 * (1 + spread - mu**2 - jnp.exp(spread)).sum(-1)
    return jnp.mean(rebuilt + divergence)


def dlrm(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = jax.nn.relu(dense(p["bottom_1"], inputs["dense_features"]))
    x = jax.nn.relu(dense(p["bottom_2"], x))
    a = embedding(p["item_table"], inputs["seen_items"]).sum(1)
    b = embedding(p["user_table"], inputs["like_users"]).sum(1)
    rows = jnp.stack([x, a, b], 1)
    row, column = np.tril_indices(3, -1)
    pairs = jnp.einsum("bif,bjf->bij", rows, rows)[:, row, column]
    h = jax.nn.relu(dense(p["top_1"], jnp.concatenate([x, pairs], 1)))
    return dense(p["top_2"], h)[:, 0]


def gcn(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x, sender, receiver = (inputs[n] for n in ("x", "sender", "receiver"))
    degree = 1 + jnp.zeros(x.shape[1], x.dtype).at[receiver].add(1)
    norm = jax.lax.rsqrt(degree)[:, None]

    def convolve(p: Arrays, x: jax.Array) -> jax.Array:
        scaled = x @ p["W"] * norm
        return scaled.at[:, receiver].add(scaled[:, sender]) * norm + p["b"]

    return convolve(p["second"], jax.nn.relu(convolve(p["first"], x)))


def bilstm_tagger(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedding(p["embed"], time_major(inputs["sentence"]))
    kept = time_major(not_ended(inputs["sentence"], inputs["lengths"]))[..., None]
    for number in (1, 2):
        both = []
        for way, step in (("ahead", 1), ("back", -1)):
            h = jnp.zeros((x.shape[1], sizes["hidden"]), x.dtype)
            states = masked_lstm(p[f"read_{number}"][way], x[::step], kept[::step], h)
            both.append(states[::step])
        x = jnp.concatenate(both, -1)
    return dense(p["out"], x).swapaxes(0, 1)


def lstm_language_model(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedding(p["embed"], time_major(inputs["words"]))
    for name in ("lstm_1", "lstm_2"):
        start = jnp.zeros((x.shape[1], sizes["units"]), x.dtype)
        x, _ = lstm(p[name], x, (start, start), jax.nn.sigmoid)
    return dense(p["out"], x).swapaxes(0, 1)


def tagger_loss(logits: jax.Array, inputs: Arrays, targets: Arrays) -> jax.Array:
    """The mean over the words that are there."""
    return mean_of(not_ended(inputs["sentence"], inputs["lengths"]), logits, targets["tag"])


def seq2seq_attention(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    read = embedding(p["embed_read"], time_major(inputs["read"]))
    memory = gru_after(p["reader"], read, zeros(p["reader"], read)).swapaxes(0, 1)
    before = embedding(p["embed_written"], time_major(inputs["before"]))
    h = gru_after(p["writer"], before, zeros(p["writer"], before)).swapaxes(0, 1)
    inside = jnp.arange(memory.shape[1]) < inputs["lengths"][:, None]
    scores = jnp.einsum("bth,bsh->bts", h, memory)
    weight = jax.nn.softmax(jnp.where(inside[:, None], scores, -1e30))
    context = jnp.einsum("bts,bsh->bth", weight, memory)
    both = jnp.concatenate([context, h], -1)
    return dense(p["out"], jnp.tanh(linear(p["join"], both)))


def selective_scan(p: Arrays, x: jax.Array) -> jax.Array:
    """[batch, time, features], by a scan over the steps."""
    states = p["log_rate"].shape[1]
    rate = jnp.exp(p["log_rate"]) * (jnp.arange(states, dtype=x.dtype) + 1)
    delta = jax.nn.softplus(x @ p["W_delta"] + p["b_delta"])
    parts = (delta, delta * x, x @ p["W_in"], x @ p["W_out"])

    def step(h: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
        delta, added, b, c = now
        h = jnp.exp(-delta[..., None] * rate) * h + added[..., None] * b[:, None]
        return h, jnp.einsum("bfs,bs->bf", h, c)

    first = jnp.zeros((len(x), *p["log_rate"].shape), x.dtype)
    y = jax.lax.scan(step, first, tuple(a.swapaxes(0, 1) for a in parts))[1]
    return y.swapaxes(0, 1) + p["direct"] * x


def causal_conv(p: Arrays, x: jax.Array) -> jax.Array:
    """Each channel over a few steps of its past."""
    kernel, features = p["W"].shape
    y = jax.lax.conv_general_dilated(
        x,
        p["W"][:, None],
        (1,),
        [(kernel - 1, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=features,
    )
    return y + p["b"]


def mamba(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedding(p["embed"], inputs["chars"])
    for own in repeated(p["blocks"]):
        h = rms_norm(own["norm"], x)
        inner = jax.nn.silu(causal_conv(own["conv"], linear(own["up"], h)))
        gate = jax.nn.silu(linear(own["gate"], h))
        x = x + linear(own["down"], selective_scan(own["scan"], inner) * gate)
    return linear(p["out"], rms_norm(p["norm"], x))


def tree(arrays: Arrays) -> dict[str, Any]:
    """The parameters of a model by part, the gates of recurrent layers side by side."""
    found = nested(arrays)
    for name, own in found.items():
        if "back_W_f" in own:
            back = {n.removeprefix("back_"): a for n, a in own.items() if n.startswith("back_")}
            found[name] = {"ahead": lstm_tree(own), "back": lstm_tree(back)}
        elif "W_f" in own:
            found[name] = lstm_tree(own)
        elif "c_z" in own:
            found[name] = gru_tree(own)
    return found
