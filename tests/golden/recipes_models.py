"""Witnesses of what larger models are made of: experts, graphs, rotary positions, tied tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from golden.recipe import Recipe

Tensors = Mapping[str, Any]
EPSILON = 1e-6  # of rms_norm


def models(torch: Any, keras: Any) -> list[Recipe]:
    """The layers, by torch; what Keras has too, by Keras."""
    import keras as k
    import torch as t

    f, ops = t.nn.functional, k.ops
    made = [
        Recipe(
            "layer",
            "unembedding",
            "torch.nn.functional.linear",
            lambda v: {"y": f.linear(v["x"], v["table"])},
        ),
        Recipe(
            "layer",
            "unembedding",
            "keras.ops.einsum",
            lambda v: {"y": ops.einsum("btu,ru->btr", v["x"], v["table"])},
        ),
    ]
    for name, function in (("silu", f.silu), ("gelu", f.gelu)):
        act = {"activation": name}
        made += [
            Recipe("layer", "mixture_of_experts", "torch.topk", _experts(t, function), act),
            Recipe("layer", "llama_block", "torch.nn.functional.silu", _llama(t, function), act),
        ]
    relu, silu = {"activation": "relu"}, {"activation": "silu"}
    linear = "torch.nn.functional.linear"
    made += [
        Recipe("layer", "dense", linear, torch.linear("relu"), relu),
        Recipe(
            "layer", "dense_without_bias", linear, lambda v: {"y": f.silu(v["x"] @ v["W"])}, silu
        ),
    ]
    for name, function in (("linear", lambda x: x), ("tanh", t.tanh), ("relu", t.relu)):
        act = {"activation": name}
        made.append(Recipe("layer", "graph_convolution", "torch.eye", _graph(t, function), act))
    for base in (10000.0, 7.0):
        source = "torch.nn.functional.scaled_dot_product_attention"
        kernel = _attention(t, base)
        made.append(Recipe("layer", "grouped_attention", source, kernel, {"base": base}))
    return made


def turned(base: float) -> Callable[[Tensors], Tensors]:
    """Rotary positions as products of complex numbers."""
    import torch as t

    return lambda v: {"y": _turned(t, v["x"], base)}


def _turned(t: Any, x: Any, base: float) -> Any:
    a, b = x.chunk(2, -1)
    half, time = a.shape[-1], x.shape[-2]
    rates = base ** -(t.arange(half, dtype=x.dtype) / half)
    angles = t.outer(t.arange(time, dtype=x.dtype), rates)
    product = t.complex(a, b) * t.polar(t.ones_like(angles), angles)
    return t.cat([product.real, product.imag], -1)


def _experts(t: Any, activation: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    """Only the experts that were chosen, one example after the other."""

    def kernel(v: Tensors) -> Tensors:
        rows = v["x"].reshape(-1, v["x"].shape[-1])
        found = []
        for row in rows:
            score, expert = t.topk(row @ v["W_route"], 2)
            parts = [activation(row @ v["W_up"][e]) @ v["W_down"][e] for e in expert]
            found.append(t.softmax(score, -1) @ t.stack(parts))
        return {"y": t.stack(found).reshape(v["x"].shape)}

    return kernel


def _graph(t: Any, activation: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    """By the matrix of neighbours, as the paper has it."""

    def kernel(v: Tensors) -> Tensors:
        nodes = v["x"].shape[-2]
        near = t.eye(nodes, dtype=v["x"].dtype)
        for sender, receiver in zip(v["sender"].tolist(), v["receiver"].tolist(), strict=True):
            near[receiver, sender] += 1
        root = near.sum(1) ** -0.5
        near = root[:, None] * near * root
        return {"y": activation(near @ v["x"] @ v["W"] + v["b"])}

    return kernel


def _attention(t: Any, base: float) -> Callable[[Tensors], Tensors]:
    f = t.nn.functional

    def kernel(v: Tensors, groups: int = 2) -> Tensors:
        width = v["W_k"].shape[1] // groups
        queries, keys, values = (
            (v["x"] @ v[name]).unflatten(-1, (-1, width)).transpose(1, 2)
            for name in ("W_q", "W_k", "W_v")
        )
        queries, keys = (_turned(t, x, base) for x in (queries, keys))
        found = f.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=True
        )
        return {"y": found.transpose(1, 2).flatten(2) @ v["W_o"]}

    return kernel


def _llama(t: Any, activation: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    attention = _attention(t, 10000.0)

    def norm(x: Any, gamma: Any) -> Any:
        return t.nn.functional.rms_norm(x, gamma.shape, gamma, EPSILON)

    def kernel(v: Tensors) -> Tensors:
        attend = {n.removeprefix("attend."): w for n, w in v.items() if n.startswith("attend.")}
        h = v["x"] + attention({"x": norm(v["x"], v["norm_1.gamma"]), **attend})["y"]
        inner = norm(h, v["norm_2.gamma"])
        return {"y": h + activation(inner @ v["gate.W"]) * (inner @ v["up.W"]) @ v["down.W"]}

    return kernel
