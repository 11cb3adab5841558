"""Rules that translate torch's layers, such as ``aten.linear``, to shipped layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness.extend.models import Operand

from .trace_rules import RULES, OperatorArguments, TorchTranslation, length_of, name_of, unsupported


@RULES.of("embedding")
def _embedding(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if not t.builder.is_weight(a["weight"]):
        return t.builder.add("take", [a["weight"], a["indices"]], {"axis": 0}, **about)
    rows, units = (int(n) for n in node.args[0].meta["val"].shape)
    attributes = {"rows": rows, "units": units}
    weights = {"table": (a["weight"], "")}
    result = t.builder.layer("embedding", [a["indices"]], attributes, weights, about)
    if a["padding_idx"] < 0:
        return result
    # The row of the padding gets no gradient.
    shape = about["shape"][:-1]
    condition = {"shape": shape, "kind": "boolean"}
    padding = t.builder.node("==", [a["indices"], a["padding_idx"]], about, **condition)
    padding = t.builder.node("reshape", [padding], about, (*shape, 1), "boolean")
    constant = t.builder.node("stop_gradient", [result], about)
    return t.builder.node("where", [padding, constant, result], about)


@RULES.of("linear")
def _linear(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return _dense(t, a["input"], a["weight"], a["bias"], ".T", about)


@RULES.of("addmm")
def _addmm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return _dense(t, a["mat1"], a["mat2"], a["self"], "", about)


def _dense(
    t: TorchTranslation,
    value: Operand,
    weight: Operand,
    bias: Operand | None,
    turn: str,
    about: Any,
) -> Operand:
    """Add a dense layer; if its weight is computed, a matrix product."""
    if t.builder.is_weight(weight) and (bias is None or t.builder.is_weight(bias)):
        weights = {"W": (weight, turn)} | ({} if bias is None else {"b": (bias, "")})
        attributes = {"units": about["shape"][-1]} | ({"bias": False} if bias is None else {})
        return t.builder.layer("dense", [value], attributes, weights, about)
    if turn:
        shape = tuple(reversed(t.builder.shape_of(weight)))
        weight = t.builder.node("permute", [weight], about, shape, axes=[1, 0])
    product = t.builder.add("@", [value, weight], {}, **about)
    return product if bias is None else t.builder.add("+", [product, bias], {}, **about)


def _are_weights(t: TorchTranslation, *operands: Operand | None) -> bool:
    """Return whether all operands are arrays of the model itself, not absent or computed."""
    return all(operand is not None and t.builder.is_weight(operand) for operand in operands)


@RULES.of("layer_norm")
def _layer_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if len(a["normalized_shape"]) == 1 and _are_weights(t, a["weight"], a["bias"]):
        weights = {"gamma": (a["weight"], ""), "beta": (a["bias"], "")}
        return t.builder.layer("layer_norm", [a["input"]], {"epsilon": a["eps"]}, weights, about)
    axes = list(range(-len(a["normalized_shape"]), 0))
    return _normalize(t, a["input"], axes, a["eps"], (a["weight"], a["bias"]), about)


def _normalize(
    t: TorchTranslation,
    value: Operand,
    axes: list[int],
    epsilon: float,
    weights: Sequence[Operand | None],
    about: dict[str, Any],
) -> Operand:
    """Add a norm that no shipped layer has, e.g. without weights, or over several axes. ``weights``
    are the factor and the summand, if any."""
    rank = len(about["shape"])
    axes = [n % rank for n in axes]
    own: dict[str, Any] = {"axis": axes, "keepdims": True}
    one = tuple(1 if n in axes else length for n, length in enumerate(about["shape"]))
    mean = t.builder.node("mean", [value], about, one, **own)
    centered = t.builder.add("-", [value, mean], {}, **about)
    variance = t.builder.node("var", [value], about, one, **own)
    variance = t.builder.node("+", [variance, epsilon], about, one)
    deviation = t.builder.node("sqrt", [variance], about, one)
    result = t.builder.add("/", [centered, deviation], {}, **about)
    for op, weight in zip("*+", weights, strict=True):
        if weight is not None:
            result = t.builder.add(op, [result, weight], {}, **about)
    return result


@RULES.of("instance_norm")
def _instance_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if not a["use_input_stats"] or a["running_mean"] is not None:
        return unsupported(t, node, about, "with statistics of earlier batches")
    a.read.update(("momentum", "running_var"))
    axes = list(range(2, len(about["shape"])))
    shape = (about["shape"][1], *[1] * len(axes))
    weights = [
        None if weight is None else t.builder.node("reshape", [weight], about, shape)
        for weight in (a["weight"], a["bias"])
    ]
    return _normalize(t, a["input"], axes, a["eps"], weights, about)


@RULES.of("rms_norm")
def _rms_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if a["eps"] is None or not _are_weights(t, a["weight"]):
        return unsupported(t, node, about)
    weights = {"gamma": (a["weight"], "")}
    return t.builder.layer("rms_norm", [a["input"]], {"epsilon": a["eps"]}, weights, about)


@RULES.of("group_norm")
def _group_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if not _are_weights(t, a["weight"], a["bias"]):
        return unsupported(t, node, about)
    weights = {"gamma": (a["weight"], ""), "beta": (a["bias"], "")}
    each = length_of(node, 1) // a["num_groups"]
    attributes = {"groups": a["num_groups"], "each": each, "epsilon": a["eps"]}
    return t.builder.layer("group_norm", [a["input"]], attributes, weights, about, channels=1)


@RULES.of("batch_norm")
def _batch_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    weights = {
        "gamma": (a["weight"], ""),
        "beta": (a["bias"], ""),
        "moving_mean": (a["running_mean"], ""),
        "moving_variance": (a["running_var"], ""),
    }
    if a["momentum"] is None or not _are_weights(t, *(w for w, _ in weights.values())):
        return unsupported(t, node, about)
    own = {"epsilon": a["eps"], "momentum": round(1 - a["momentum"], 12)}
    return t.builder.layer("sample_batch_norm", [a["input"]], own, weights, about, channels=1)


@RULES.of("dropout")
def _dropout(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    value: Operand = a["input"] if "input" in a else a["self"]
    if a["p"] == 0 or (t.training and not a["train"]):
        return value
    return t.builder.layer("dropout", [value], {"keep": round(1 - a["p"], 12)}, {}, about)


def _each(value: Sequence[int], rank: int) -> list[int]:
    """Return one number for each axis of an image; torch also allows a single number."""
    return [*value] * rank if len(value) == 1 else [*value]


@RULES.of("conv1d", "conv2d")
def _convolution(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    kernel = [int(n) for n in node.args[1].meta["val"].shape]
    rank = len(kernel) - 2
    padding = a["padding"] if isinstance(a["padding"], str) else _each(a["padding"], rank)
    attributes = {
        "units": kernel[0],
        "kernel": kernel[2:],
        "stride": _each(a["stride"], rank),
        "padding": padding,
        "dilation": _each(a["dilation"], rank),
        "groups": a["groups"],
        "bias": a["bias"] is not None,
    }
    axes = [*range(2, rank + 2), 1, 0]
    if not _are_weights(t, a["weight"]):
        return _computed_convolution(t, node, a, attributes, axes, about)
    turn = f".transpose({', '.join(map(str, axes))})"
    weights = {"W": (a["weight"], turn)} | ({} if a["bias"] is None else {"b": (a["bias"], "")})
    return t.builder.layer(f"conv{rank}d", [a["input"]], attributes, weights, about, channels=1)


def _computed_convolution(
    t: TorchTranslation,
    node: torch.fx.Node,
    a: OperatorArguments,
    options: dict[str, Any],
    axes: list[int],
    about: dict[str, Any],
) -> Operand:
    """Add a convolution whose kernel is computed, e.g. by weight norm, as a product of windows and
    the kernel. ``axes`` are the kernel's axes in the order of the spec language."""
    if isinstance(options["padding"], str) or options["groups"] != 1:
        return unsupported(t, node, about, "its kernel is computed")
    batch, units, *counts = about["shape"]
    channels, size = length_of(node, 1), options["kernel"]
    last = [0, *range(2, len(about["shape"])), 1]
    shape = [int(n) for n in node.args[0].meta["val"].shape]
    value = t.builder.node("permute", [a["input"]], about, [shape[n] for n in last], axes=last)
    windows = {
        "axes": list(range(1, 1 + len(size))),
        "size": size,
        "lowest": False,
        "stride": options["stride"],
        "dilation": options["dilation"],
        "pads": [[n, n] for n in options["padding"]],
    }
    parts = t.builder.node("windows", [value], about, (batch, *counts, *size, channels), **windows)
    entries = math.prod(size) * channels
    parts = t.builder.node("reshape", [parts], about, (batch, *counts, entries))
    kernel = t.builder.node("permute", [a["weight"]], about, (*size, channels, units), axes=axes)
    kernel = t.builder.node("reshape", [kernel], about, (entries, units))
    wide = (batch, *counts, units)
    result = t.builder.node("@", [parts, kernel], about, wide)
    if a["bias"] is not None:
        result = t.builder.node("+", [result, a["bias"]], about, wide)
    first = [0, len(wide) - 1, *range(1, len(wide) - 1)]
    return t.builder.add("permute", [result], {"axes": first}, **about)


@RULES.of("max_pool2d", "avg_pool2d")
def _pool(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = "max_pool_first" if "max_pool" in str(node.target) else "avg_pool"
    attributes: dict[str, Any] = {
        "window": _each(a["kernel_size"], 2),
        "stride": _each(a["stride"] or a["kernel_size"], 2),
        "padding": _each(a["padding"], 2),
    }
    if (
        a["ceil_mode"]
        or a.get("divisor_override") is not None
        or set(a.get("dilation", [1])) != {1}
    ):
        return unsupported(t, node, about)
    if name == "avg_pool" and not a["count_include_pad"] and any(attributes["padding"]):
        attributes["count_padding"] = False
    return t.builder.layer(name, [a["self"]], attributes, {}, about, channels=1)


@RULES.of("adaptive_avg_pool2d", "adaptive_avg_pool1d")
def _adaptive(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    shape = [int(n) for n in node.args[0].meta["val"].shape]
    size = list(a["output_size"])
    if set(size) == {1}:
        attributes = {"axis": list(range(2, len(shape))), "keepdims": True}
        return t.builder.add("mean", [a["self"]], attributes, **about)
    if size == shape[2:]:
        return a["self"]
    if len(size) == 1 or any(n % m for n, m in zip(shape[2:], size, strict=True)):
        return unsupported(t, node, about)
    window = [n // m for n, m in zip(shape[2:], size, strict=True)]
    attributes = {"window": window, "stride": window, "padding": [0, 0]}
    return t.builder.layer("avg_pool", [a["self"]], attributes, {}, about, channels=1)


@RULES.of("scaled_dot_product_attention")
def _attention(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    width = length_of(node, -1)
    attributes = {
        "scale": width**-0.5 if a["scale"] is None else a["scale"],
        "causal": bool(a["is_causal"]),
        "keep": round(1 - a["dropout_p"], 12),
        "width": width,
    }
    mask = [] if a["attn_mask"] is None else [a["attn_mask"]]
    key, value = a["key"], a["value"]
    if a["enable_gqa"]:
        heads = length_of(node, -3)
        key, value = (_repeat_heads(t, operand, heads, about) for operand in (key, value))
    return t.builder.add("attention", [a["query"], key, value, *mask], attributes, **about)


def _repeat_heads(
    t: TorchTranslation, value: Operand, heads: int, about: dict[str, Any]
) -> Operand:
    """Add the repetition of the heads ``[batch, groups, time, width]`` of keys or values, which
    several heads of queries share."""
    batch, groups, time, width = t.builder.shape_of(value)
    apart = t.builder.node("reshape", [value], about, (batch, groups, 1, time, width))
    shape = (batch, groups, heads // groups, time, width)
    repeated = t.builder.node("broadcast", [apart], about, shape)
    return t.builder.node("reshape", [repeated], about, (batch, heads, time, width))


@RULES.of("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Any:
    attributes = {
        "cell": name_of(node),
        "layers": a["num_layers"],
        "bias": a["has_biases"],
        "bidirectional": a["bidirectional"],
        "batch_first": a["batch_first"],
        "keep": round(1 - a["dropout"], 12),
        "weights": [t.builder.weight_name(w) for w in a["params"]],
    }
    states = list(a["hx"]) if isinstance(a["hx"], list | tuple) else [a["hx"]]
    outputs = [{**about, "shape": tuple(int(n) for n in value.shape)} for value in node.meta["val"]]
    first = t.builder.add("recurrent", [a["input"], *states], attributes, **outputs[0])
    rest = [
        t.builder.add("final_state", [first], {"number": number}, **own)
        for number, own in enumerate(outputs[1:])
    ]
    return [first, *rest]
