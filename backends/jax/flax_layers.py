"""The Flax layers that the backend ``flax`` uses, and how their parameters correspond to the
spec's.

Two kinds of layers run as equations, because Flax cannot express them. ``gru_reset_after`` has two
biases per gate, but Flax's GRU has one. Flax's bidirectional layers take lengths, which cannot
express a mask with gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from harness.extend import ClaimableCall, FrozenZeros, Join, Native, Packing, Part, Piece, Tensors

from .layers import AXES, POOLS, framing

# Each Flax module is built once, and gets its variables at each call.

Module = Any
# The arguments of every Flax module, such as ``dtype``, by name.
Own = Mapping[str, Any]
# A function that returns a layer's results, from its module and its inputs, states and statistics
# by role.
Call = Callable[[Module, Tensors], Sequence[Any]]
# A function that returns Flax's implementation of a layer in a dtype, or None.
Claim = Callable[[ClaimableCall, str], Native | None]
ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "linear": lambda y: y,
    **{
        name: getattr(nnx, name)
        for name in ("relu", "tanh", "sigmoid", "softmax", "log_softmax", "silu", "softplus")
    },
    "gelu": partial(nnx.gelu, approximate=False),
    "gelu_tanh": partial(nnx.gelu, approximate=True),
}


def module(
    dtype: str,
    make: Callable[[Own], Module],
    pieces: Mapping[str, Piece],
    call: Call,
    statistics: Mapping[str, str] | None = None,
) -> Native:
    """Return a native layer (see :class:`Native`) that runs a Flax module.

    ``make`` gets arguments such as the dtype, and creates the module. ``pieces`` maps a path in the
    module, e.g. ``cell.dense_i.kernel``, to the spec's parameters that this variable holds.
    ``statistics`` maps a path to the name of a moving statistic. ``call`` calls the module, given
    its inputs, states and statistics by name.
    """
    own = {"dtype": dtype, "param_dtype": dtype}
    outline = nnx.eval_shape(lambda: make({**own, "rngs": nnx.Rngs(0)}))
    graph, variables = nnx.split(outline)
    roles = statistics or {}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        arrays = {**packed, **{path: values[role] for path, role in roles.items()}}
        filled = [
            (path, variable.replace(arrays[".".join(path)].reshape(variable.shape)))
            for path, variable in nnx.to_flat_state(variables)
        ]
        return call(nnx.merge(graph, nnx.from_flat_state(filled)), values)

    inner = getattr(outline, "cell", outline)
    return Native(f"flax.nnx.{type(inner).__name__}", run, Packing(pieces))


def call_module(module: Module, values: Tensors) -> Sequence[Any]:
    """Call a module that has only the input ``x``; return a list with its result."""
    return [module(values["x"])]


def call_with_activation(activation: str) -> Call:
    """Return a function that calls a module with one input, and applies an activation to the
    result."""
    return lambda module, values: [ACTIVATIONS[activation](module(values["x"]))]


def kernel_and_bias(layer: ClaimableCall) -> dict[str, Piece]:
    """Return a dictionary from Flax's names (``kernel``, ``bias``) to the spec's parameters ``W``
    and, if the layer has a bias, ``b``."""
    bias: dict[str, Piece] = {"bias": Part("b")} if "b" in layer.shapes else {}
    return {"kernel": Part("W"), **bias}


def if_activation_known(claim: Claim) -> Claim:
    """Wrap the function ``claim``, which returns Flax's implementation of a layer. For layers with
    activations that Flax does not have, the wrapped function returns None, so these layers run as
    equations."""

    def claim_if_known(layer: ClaimableCall, dtype: str) -> Native | None:
        functions = (layer.attributes.get(n, "linear") for n in ("activation", "gate"))
        return claim(layer, dtype) if all(f in ACTIVATIONS for f in functions) else None

    return claim_if_known


# Convolutions and pools that Flax has as modules or functions.


def _convolution(layer: ClaimableCall, dtype: str) -> Native:
    stride, dilation, padding, groups = framing(layer)
    *kernel, channels, units = layer.shapes["W"]
    pieces = kernel_and_bias(layer)
    further: dict[str, Any] = {"kernel_size": tuple(kernel), "strides": stride, "padding": padding}
    further |= {"kernel_dilation": dilation, "use_bias": "bias" in pieces}

    def make(own: Own) -> Module:
        if layer.definition == "conv2d_transpose":
            return nnx.ConvTranspose(units, channels, transpose_kernel=True, **own, **further)
        return nnx.Conv(channels * groups, units, feature_group_count=groups, **own, **further)

    return module(dtype, make, pieces, call_with_activation(layer.attributes["activation"]))


def _pool(layer: ClaimableCall, dtype: str) -> Native:
    attributes = layer.attributes
    pool = nnx.avg_pool if layer.definition == "avg_pool" else nnx.max_pool
    options = {"window_shape": attributes["window"], "strides": attributes["stride"]}
    options["padding"] = "SAME" if attributes["padding"] == "same" else attributes["padding"]
    if "count_padding" in attributes:
        options["count_include_pad"] = attributes["count_padding"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [pool(values["x"], **options)]

    return Native(f"flax.nnx.{pool.__name__}", run, Packing({}))


IMAGES: Mapping[str, Claim] = {
    **dict.fromkeys(AXES, if_activation_known(_convolution)),
    **dict.fromkeys(POOLS, _pool),
}


# All other layers.

_SCALE: Mapping[str, Piece] = {"scale": Part("gamma"), "bias": Part("beta")}
# By default, Flax computes a variance as E[x^2] - E[x]^2, which loses precision if the mean is far
# from zero.
_EXACT: Mapping[str, Any] = {"use_fast_variance": False}


def _dense(layer: ClaimableCall, dtype: str) -> Native:
    features, units = layer.shapes["W"]
    pieces, activation = kernel_and_bias(layer), layer.attributes.get("activation", "linear")
    biased = "bias" in pieces
    return module(
        dtype,
        lambda own: nnx.Linear(features, units, use_bias=biased, **own),
        pieces,
        call_with_activation(activation),
    )


def _embedding(layer: ClaimableCall, dtype: str) -> Native:
    rows, units = layer.shapes["table"]
    return module(
        dtype,
        lambda own: nnx.Embed(rows, units, **own),
        {"embedding": Part("table")},
        lambda module, values: [module(values["indices"])],
    )


def _layer_norm(layer: ClaimableCall, dtype: str) -> Native:
    (features,), epsilon = layer.shapes["gamma"], layer.attributes["epsilon"]
    return module(
        dtype,
        lambda own: nnx.LayerNorm(features, epsilon=epsilon, **own, **_EXACT),
        _SCALE,
        call_module,
    )


def _rms_norm(layer: ClaimableCall, dtype: str) -> Native:
    (features,), epsilon = layer.shapes["gamma"], layer.attributes["epsilon"]
    return module(
        dtype,
        lambda own: nnx.RMSNorm(features, epsilon=epsilon, **own),
        {"scale": Part("gamma")},
        call_module,
    )


def _group_norm(layer: ClaimableCall, dtype: str) -> Native:
    (features,), attributes = layer.shapes["gamma"], layer.attributes
    sizes = {"num_groups": attributes["groups"], "epsilon": attributes["epsilon"]}
    return module(
        dtype, lambda own: nnx.GroupNorm(features, **sizes, **own, **_EXACT), _SCALE, call_module
    )


def _batch_norm(layer: ClaimableCall, dtype: str) -> Native:
    (features,), attributes = layer.shapes["gamma"], layer.attributes
    rates = {"epsilon": attributes["epsilon"], "momentum": attributes["momentum"]}

    def call(module: Module, values: Tensors) -> Sequence[Any]:
        y = module(values["x"], use_running_average=layer.phase == "inference")
        return [y, module.mean[...], module.var[...]]

    statistics = {"mean": "moving_mean", "var": "moving_variance"}
    return module(
        dtype,
        lambda own: nnx.BatchNorm(features, **rates, **own, **_EXACT),
        _SCALE,
        call,
        statistics,
    )


def _gates(stem: str, axis: int) -> Join:
    return Join(tuple(Part(f"{stem}_{gate}") for gate in "ifgo"), axis)


def _lstm_pieces(path: str, way: str) -> dict[str, Piece]:
    return {
        f"{path}cell.dense_i.kernel": _gates(f"{way}W", 1),
        f"{path}cell.dense_h.kernel": _gates(f"{way}U", 1),
        f"{path}cell.dense_h.bias": _gates(f"{way}b", 0),
    }


def _rnn_module(cell: Module) -> Module:
    return nnx.RNN(cell, return_carry=True, rngs=False)


def _lstm_module(layer: ClaimableCall, own: Own) -> Module:
    features, units = layer.shapes["W_i"]
    activation, gate = (ACTIVATIONS[layer.attributes[n]] for n in ("activation", "gate"))
    cell = nnx.OptimizedLSTMCell(features, units, gate_fn=gate, activation_fn=activation, **own)
    return _rnn_module(cell)


def _lstm(layer: ClaimableCall, dtype: str) -> Native:
    def call(module: Module, values: Tensors) -> Sequence[Any]:
        (c, h), y = module(values["x"], initial_carry=(values["c"], values["h"]))
        return [y, h, c]

    return module(dtype, lambda own: _lstm_module(layer, own), _lstm_pieces("", ""), call)


def _bidirectional_lstm(layer: ClaimableCall, dtype: str) -> Native:
    def make(own: Own) -> Module:
        ways = (_lstm_module(layer, own) for _ in range(2))
        return nnx.Bidirectional(*ways, return_carry=True, rngs=False)

    def call(module: Module, values: Tensors) -> Sequence[Any]:
        first = tuple((values[f"{way}c"], values[f"{way}h"]) for way in ("", "back_"))
        (ahead, back), y = module(values["x"], initial_carry=first)
        return [y, ahead[1], ahead[0], back[1], back[0]]

    pieces = {**_lstm_pieces("forward_rnn.", ""), **_lstm_pieces("backward_rnn.", "back_")}
    return module(dtype, make, pieces, call)


def _with_one_bias(claim: Claim) -> Claim:
    """Wrap a claim function to return None for an LSTM with two biases or none, which Flax
    lacks."""

    def claim_if_one(layer: ClaimableCall, dtype: str) -> Native | None:
        one = layer.attributes["bias"] and not layer.attributes["second_bias"]
        return claim(layer, dtype) if one else None

    return claim_if_one


def _simple_rnn(layer: ClaimableCall, dtype: str) -> Native:
    features, units = layer.shapes["W"]
    activation = ACTIVATIONS[layer.attributes["activation"]]

    def make(own: Own) -> Module:
        cell = nnx.SimpleCell(features, units, activation_fn=activation, **own)
        return _rnn_module(cell)

    def call(module: Module, values: Tensors) -> Sequence[Any]:
        h, y = module(values["x"], initial_carry=values["h"])
        return [y, h]

    pieces: dict[str, Piece] = {
        "cell.dense_i.kernel": Part("W"),
        "cell.dense_i.bias": Part("b") if "b" in layer.shapes else FrozenZeros((units,)),
        "cell.dense_h.kernel": Part("U"),
    }
    return module(dtype, make, pieces, call)


def _attention(layer: ClaimableCall, dtype: str) -> Native | None:
    attributes, biased = layer.attributes, {f"b_{n}" in layer.shapes for n in "qkvo"}
    # Its softmax is in float32; it draws its own noise; and it has all biases or none.
    if (
        dtype == "float64"
        or attributes["keep"] != 1
        or len(biased) > 1
        or attributes.get("zero_if_empty")
    ):
        return None
    (features, width), heads = layer.shapes["W_q"], attributes["heads"]
    sizes = {"num_heads": heads, "in_features": features, "qkv_features": width}
    sizes["in_kv_features"] = layer.shapes["W_k"][0]

    def call(module: Module, values: Tensors) -> Sequence[Any]:
        x, mask = values["x"], None
        if layer.definition == "causal_attention":
            mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]), dtype=jnp.bool_)
        elif layer.definition == "masked_attention":
            mask = values["mask"][:, None, None, :]
        return [module(x, values.get("memory", x), mask=mask)]

    parts = ("query", "key", "value", "out")
    pieces: dict[str, Piece] = {f"{name}.kernel": Part(f"W_{name[0]}") for name in parts}
    if True in biased:
        pieces |= {f"{name}.bias": Part(f"b_{name[0]}") for name in parts}
    options = {**sizes, "use_bias": True in biased, "decode": False, "keep_rngs": False}
    return module(
        dtype,
        lambda own: nnx.MultiHeadAttention(**options, **own),
        pieces,
        call,
    )


CLAIMS: Mapping[str, Claim] = {
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "lstm": if_activation_known(_with_one_bias(_lstm)),
    "bidirectional_lstm": if_activation_known(_with_one_bias(_bidirectional_lstm)),
    **dict.fromkeys(
        ("causal_attention", "self_attention", "cross_attention", "masked_attention"), _attention
    ),
    "dense": if_activation_known(_dense),
    **dict.fromkeys(("simple_rnn", "simple_rnn_without_bias"), if_activation_known(_simple_rnn)),
    **IMAGES,
}
