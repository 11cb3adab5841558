"""The JAX models with attention: gpt, llama, moe, bert and vit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax_layers import Arrays, dense, embedding, mean_of, not_ended
from jax_parts import attention, layer_norm, linear, repeated, rms_norm

Sizes = Mapping[str, int]
gelu = partial(jax.nn.gelu, approximate=False)


def block(p: Arrays, x: jax.Array, heads: int, causal: bool, activation: Any) -> jax.Array:
    """Attention and two dense layers, normalised before each part."""
    x = x + attention(p["attend"], layer_norm(p["norm_1"], x), heads, causal)
    return x + dense(p["down"], activation(dense(p["up"], layer_norm(p["norm_2"], x))))


def embedded(p: Arrays, chars: jax.Array) -> jax.Array:
    """Characters with their positions."""
    return embedding(p["embed"], chars) + p["place"]["table"][: chars.shape[1]]


def gpt(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedded(p, inputs["chars"])
    for own in repeated(p["blocks"]):
        x = block(own, x, sizes["heads"], True, jax.nn.gelu)
    return layer_norm(p["norm"], x) @ p["embed"]["table"].T


def grouped_attention(p: Arrays, x: jax.Array, turn: Any, sizes: Sizes) -> jax.Array:
    """Causal attention whose queries share keys and values, with rotary positions."""
    head, groups = 2 * sizes["half"], sizes["groups"]
    three = (x @ p["W_qkv"]).reshape(*x.shape[:2], -1, head)
    q, k, v = jnp.split(three, [groups * sizes["each"], groups * (sizes["each"] + 1)], axis=2)
    y = jax.nn.dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
    return y.reshape(*x.shape[:2], -1) @ p["W_o"]


def rotate(x: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
    """[batch, time, heads, head]: pairs of entries, one of each half, turned."""
    cos, sin = turn
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def llama(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x, half = embedding(p["embed"], inputs["chars"]), sizes["half"]
    each = jnp.arange(x.shape[1])[:, None] * 10000.0 ** (-jnp.arange(half, dtype=x.dtype) / half)
    turn = jnp.cos(each)[:, None], jnp.sin(each)[:, None]
    for own in repeated(p["blocks"]):
        x = x + grouped_attention(own["attend"], rms_norm(own["norm_1"], x), turn, sizes)
        h = rms_norm(own["norm_2"], x)
        x = x + linear(own["down"], jax.nn.silu(linear(own["gate"], h)) * linear(own["up"], h))
    return linear(p["out"], rms_norm(p["norm"], x))


def experts(p: Arrays, x: jax.Array, chosen: int) -> jax.Array:
    """All experts at once, of which each step has its best."""
    score, expert = jax.lax.top_k(x @ p["W_route"], chosen)
    each = jax.nn.one_hot(expert, p["W_up"].shape[0], dtype=x.dtype)
    weight = jnp.einsum("btc,btce->bte", jax.nn.softmax(score), each)
    hidden = jax.nn.silu(jnp.einsum("btf,efw->ebtw", x, p["W_up"]))
    return jnp.einsum("ebtw,ewf,bte->btf", hidden, p["W_down"], weight)


def moe(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = embedded(p, inputs["chars"])
    x = x + attention(p["attend"], layer_norm(p["norm_1"], x), sizes["heads"], True)
    x = x + experts(p["mix"], layer_norm(p["norm_2"], x), sizes["chosen"])
    return linear(p["out"], layer_norm(p["norm"], x))


def bert(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = layer_norm(p["norm"], embedded(p, inputs["chars"]))
    mask = not_ended(inputs["chars"], inputs["lengths"])[:, None, None]
    for own in repeated(p["blocks"]):
        y = attention(own["attend"], x, sizes["heads"], False, mask)
        x = layer_norm(own["norm_1"], x + y)
        y = dense(own["down"], gelu(dense(own["up"], x)))
        x = layer_norm(own["norm_2"], x + y)
    return dense(p["out"], layer_norm(p["norm_out"], gelu(dense(p["transform"], x))))


def bert_loss(logits: jax.Array, inputs: Arrays, targets: Arrays) -> jax.Array:
    """The mean over the characters that were hidden and are inside of a row."""
    kept = targets["hidden"] & not_ended(inputs["chars"], inputs["lengths"])
    return mean_of(kept, logits, targets["target"])


def vit(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    image, patch = inputs["image"], sizes["patch"]
    batch, side, _, channels = image.shape
    grid = side // patch
    cut = image.reshape(batch, grid, patch, grid, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    x = dense(p["embed"], cut.reshape(batch, grid * grid, -1)) + p["place"]["table"]
    for own in repeated(p["blocks"]):
        x = block(own, x, sizes["heads"], False, gelu)
    return dense(p["out"], layer_norm(p["norm"], x).mean(1))
