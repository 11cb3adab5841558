"""Layers of the Keras models that Keras has not, and what goes into its own.

A layer has the name of that of the spec, so that its parameters find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Arrays = Mapping[str, Any]


def part(arrays: Arrays, name: str) -> dict[str, Any]:
    """The arrays of one part, under their names in it."""
    start = f"{name}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}


def not_ended(rows: Any, lengths: Any) -> Any:
    """[batch, time]: where a row has not ended."""
    return ops.less(ops.arange(rows.shape[1])[None], lengths[:, None])


def count(arrays: Arrays, name: str) -> int:
    """How often a layer is repeated."""
    return len({n.split(".")[1] for n in arrays if n.startswith(f"{name}.")})


class Positions(layers.Layer):
    """Adds a row of a table to each step."""

    def __init__(self, context: int, **free: Any) -> None:
        super().__init__(**free)
        self.context = context

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(self.context, shape[-1]), name="table")

    def call(self, x: Any) -> Any:
        return x + self.table[: ops.shape(x)[1]]


class GroupedAttention(layers.Layer):
    """Causal attention whose queries share keys and values, with rotary positions."""

    def __init__(self, groups: int, each: int, half: int, **free: Any) -> None:
        super().__init__(**free)
        self.half, head = half, 2 * half
        self.heads = {"q": groups * each, "k": groups, "v": groups}
        self.into = {
            name: layers.Dense(number * head, use_bias=False, name=name)
            for name, number in self.heads.items()
        }
        self.out = layers.Dense(groups * each * head, use_bias=False, name="o")

    def build(self, shape: Any) -> None:
        for layer in (*self.into.values(), self.out):
            layer.build(shape)

    def call(self, x: Any) -> Any:
        _, time, width = x.shape
        q, k, v = (
            ops.reshape(self.into[name](x), (-1, time, number, 2 * self.half))
            for name, number in self.heads.items()
        )
        y = ops.dot_product_attention(self._turned(q), self._turned(k), v, is_causal=True)
        return self.out(ops.reshape(y, (-1, time, width)))

    def _turned(self, x: Any) -> Any:
        rate = 10000.0 ** (-np.arange(self.half) / self.half)
        angle = np.arange(x.shape[1])[:, None, None] * rate
        cos, sin = (ops.convert_to_tensor(f(angle), x.dtype) for f in (np.cos, np.sin))
        a, b = ops.split(x, 2, axis=-1)
        return ops.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Experts(layers.Layer):
    """All experts at once, of which each step has its best."""

    def __init__(self, experts: int, chosen: int, wide: int, **free: Any) -> None:
        super().__init__(**free)
        self.experts, self.chosen, self.wide = experts, chosen, wide

    def build(self, shape: Any) -> None:
        features = shape[-1]
        self.route = self.add_weight(shape=(features, self.experts), name="route")
        self.up = self.add_weight(shape=(self.experts, features, self.wide), name="up")
        self.down = self.add_weight(shape=(self.experts, self.wide, features), name="down")

    def call(self, x: Any) -> Any:
        score, expert = ops.top_k(ops.matmul(x, self.route), self.chosen)
        each = ops.one_hot(expert, self.experts, dtype=x.dtype)
        weight = ops.einsum("btc,btce->bte", ops.softmax(score), each)
        hidden = ops.silu(ops.einsum("btf,efw->btew", x, self.up))
        return ops.einsum("btef,bte->btf", ops.einsum("btew,ewf->btef", hidden, self.down), weight)


class Convolution(layers.Layer):
    """A graph convolution; the edges come as one matrix of what a node takes from each other."""

    def __init__(self, units: int, activation: str | None = None, **free: Any) -> None:
        super().__init__(**free)
        self.units, self.activation = units, keras.activations.get(activation)

    def build(self, shapes: Any) -> None:
        self.kernel = self.add_weight(shape=(shapes[0][-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def call(self, given: Any) -> Any:
        x, near = given
        return self.activation(ops.matmul(near, ops.matmul(x, self.kernel)) + self.bias)

    def compute_output_shape(self, shapes: Any) -> Any:
        return (*shapes[0][:-1], self.units)


def adjacency(sender: Any, receiver: Any, nodes: int) -> Any:
    """[nodes, nodes]: what a node takes from each other, by the roots of both degrees."""
    ends = (ops.one_hot(edge, nodes, dtype="float32") for edge in (receiver, sender))
    to, source = ends
    near = ops.matmul(ops.transpose(to), source) + ops.eye(nodes)
    root = ops.rsqrt(ops.sum(near, axis=1))
    return near * root[:, None] * root


class Sample(layers.Layer):
    """A code drawn by mean and log of variance, with noise that comes in; adds its divergence."""

    def call(self, given: Any, training: bool = False) -> Any:
        center, spread, unit = given
        if not training:
            return center
        each = ops.sum(1 + spread - ops.square(center) - ops.exp(spread), axis=-1)
        self.add_loss(-0.5 * ops.mean(each))
        return center + ops.exp(0.5 * spread) * unit


class ScanCell(layers.Layer):
    """A step of a selective scan, for layers.RNN: of the input and its products [..., all]."""

    def __init__(self, features: int, states: int, **free: Any) -> None:
        super().__init__(**free)
        self.features, self.states = features, states
        self.state_size, self.output_size = features * states, features

    def build(self, shape: Any) -> None:
        self.log_rate = self.add_weight(shape=(self.features, self.states), name="log_rate")
        self.built = True

    def call(self, row: Any, states: Any, training: bool = False) -> Any:
        f, s = self.features, self.states
        delta, added, b, c = ops.split(row, [f, 2 * f, 2 * f + s], axis=-1)
        rate = ops.exp(self.log_rate) * (ops.arange(s, dtype="float32") + 1)
        h = ops.reshape(states[0], (-1, f, s))
        h = ops.exp(-delta[:, :, None] * rate) * h + added[:, :, None] * b[:, None]
        return ops.sum(h * c[:, None], axis=-1), [ops.reshape(h, (-1, f * s))]


class SelectiveScan(layers.Layer):
    """A linear state space of each channel, whose steps and products the input chooses."""

    def __init__(self, features: int, states: int, **free: Any) -> None:
        super().__init__(**free)
        self.delta = layers.Dense(features, activation="softplus", name="delta")
        self.into, self.out = (layers.Dense(states, use_bias=False, name=n) for n in ("in", "out"))
        self.steps = layers.RNN(ScanCell(features, states), return_sequences=True)
        self.widths = features, states

    def build(self, shape: Any) -> None:
        for layer in (self.delta, self.into, self.out):
            layer.build(shape)
        features, states = self.widths
        self.steps.build((*shape[:-1], 2 * (features + states)))
        self.direct = self.add_weight(shape=(features,), name="direct")

    def call(self, x: Any) -> Any:
        delta = self.delta(x)
        row = ops.concatenate([delta, delta * x, self.into(x), self.out(x)], axis=-1)
        return self.steps(row) + self.direct * x


def weights(layer: Any, p: Arrays) -> list[tuple[Any, list[Any]]]:
    """The layers that hold the parameters of one, with their arrays in Keras' order."""
    if isinstance(layer, layers.MultiHeadAttention):
        heads, head = layer.num_heads, layer.key_dim
        found = []
        for name in "qkv":
            found += [p[f"W_{name}"].reshape(-1, heads, head), p[f"b_{name}"].reshape(heads, head)]
        return [(layer, [*found, p["W_o"].reshape(heads, head, -1), p["b_o"]])]
    if isinstance(layer, GroupedAttention):
        return [*((layer.into[n], [p[f"W_{n}"]]) for n in "qkv"), (layer.out, [p["W_o"]])]
    if isinstance(layer, Experts):
        return [(layer, [p["W_route"], p["W_up"], p["W_down"]])]
    if isinstance(layer, SelectiveScan):
        dense = [(layer.delta, [p["W_delta"], p["b_delta"]])]
        dense += [(layer.into, [p["W_in"]]), (layer.out, [p["W_out"]])]
        return [*dense, (layer.steps.cell, [p["log_rate"]]), (layer.direct, p["direct"])]
    if isinstance(layer, layers.DepthwiseConv1D):
        return [(layer, [p["W"][..., None], p["b"]])]
    if isinstance(layer, layers.Bidirectional):
        back = {n.removeprefix("back_"): a for n, a in p.items() if n.startswith("back_")}
        return [*weights(layer.forward_layer, p), *weights(layer.backward_layer, back)]
    if isinstance(layer, layers.LSTM | layers.GRU):
        gates, kinds = ("ifgo", "WUb") if "W_f" in p else ("zrn", "WUbc")
        found = [np.concatenate([p[f"{k}_{g}"] for g in gates], axis=-1) for k in kinds]
        return [(layer, found if len(kinds) == 3 else [*found[:2], np.stack(found[2:])])]
    names = ("table", "W", "b", "gamma", "beta", "moving_mean", "moving_variance")
    return [(layer, [p[n] for n in names if n in p])]
