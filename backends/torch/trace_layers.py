"""Rules that translate torch's layers, such as ``aten.linear``, to shipped layers."""

from __future__ import annotations

from typing import Any

import torch

from harness.extend.models import Operand

from .trace_rules import Arguments, TorchTranslation, length_of, rule, unsupported


@rule("embedding")
def _embedding(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    if not t.builder.is_weight(a["weight"]):
        return t.builder.add("take", [a["weight"], a["indices"]], {"axis": 0}, **about)
    if a["padding_idx"] >= 0:
        name, row = t.builder.weight_name(a["weight"]), a["padding_idx"]
        t.builder.graph["remarks"].append(f"the model does not train row {row} of {name}")
    rows, units = (int(n) for n in node.args[0].meta["val"].shape)
    attributes = {"rows": rows, "units": units}
    return t.builder.layer(
        "embedding", [a["indices"]], attributes, {"table": (a["weight"], "")}, about
    )


@rule("linear")
def _linear(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    return _dense(t, a["input"], a["weight"], a["bias"], ".T", about)


@rule("addmm")
def _addmm(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
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
        weight = t.builder.add("permute", [weight], {"axes": [1, 0]}, **{**about, "shape": shape})
    product = t.builder.add("@", [value, weight], {}, **about)
    return product if bias is None else t.builder.add("+", [product, bias], {}, **about)


def _are_weights(t: TorchTranslation, *operands: Operand | None) -> bool:
    """Return whether all operands are arrays of the model itself, not absent or computed."""
    return all(operand is not None and t.builder.is_weight(operand) for operand in operands)


@rule("layer_norm")
def _layer_norm(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    if len(a["normalized_shape"]) != 1:
        return unsupported(t, node, about)
    weights = {"gamma": (a["weight"], ""), "beta": (a["bias"], "")}
    if not _are_weights(t, a["weight"], a["bias"]):
        return unsupported(t, node, about)
    return t.builder.layer("layer_norm", [a["input"]], {"epsilon": a["eps"]}, weights, about)


@rule("rms_norm")
def _rms_norm(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    if a["eps"] is None or not _are_weights(t, a["weight"]):
        return unsupported(t, node, about)
    weights = {"gamma": (a["weight"], "")}
    return t.builder.layer("rms_norm", [a["input"]], {"epsilon": a["eps"]}, weights, about)


@rule("group_norm")
def _group_norm(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    if not _are_weights(t, a["weight"], a["bias"]):
        return unsupported(t, node, about)
    weights = {"gamma": (a["weight"], ""), "beta": (a["bias"], "")}
    each = length_of(node, 1) // a["num_groups"]
    attributes = {"groups": a["num_groups"], "each": each, "epsilon": a["eps"]}
    return t.builder.layer("group_norm", [a["input"]], attributes, weights, about, channels=1)


@rule("batch_norm")
def _batch_norm(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    weights = {
        "gamma": (a["weight"], ""),
        "beta": (a["bias"], ""),
        "moving_mean": (a["running_mean"], ""),
        "moving_variance": (a["running_var"], ""),
    }
    if a["momentum"] is None or not _are_weights(t, *(w for w, _ in weights.values())):
        return unsupported(t, node, about)
    attributes = {
        "epsilon": a["eps"],
        "momentum": round(1 - a["momentum"], 12),
        "sample_variance": True,
    }
    return t.builder.layer("batch_norm", [a["input"]], attributes, weights, about, channels=1)


@rule("dropout")
def _dropout(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    value: Operand = a["input"] if "input" in a else a["self"]
    if a["p"] == 0 or (t.training and not a["train"]):
        return value
    return t.builder.layer("dropout", [value], {"keep": round(1 - a["p"], 12)}, {}, about)


@rule("conv1d", "conv2d")
def _convolution(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    kernel = [int(n) for n in node.args[1].meta["val"].shape]
    rank = len(kernel) - 2
    each = lambda value: list(value) * rank if len(value) == 1 else list(value)  # noqa: E731
    padding = a["padding"] if isinstance(a["padding"], str) else each(a["padding"])
    attributes = {
        "units": kernel[0],
        "kernel": kernel[2:],
        "stride": each(a["stride"]),
        "padding": padding,
        "dilation": each(a["dilation"]),
        "groups": a["groups"],
        "bias": a["bias"] is not None,
    }
    turn = f".transpose({', '.join(map(str, [*range(2, rank + 2), 1, 0]))})"
    weights = {"W": (a["weight"], turn)} | ({} if a["bias"] is None else {"b": (a["bias"], "")})
    return t.builder.layer(f"conv{rank}d", [a["input"]], attributes, weights, about, channels=1)


@rule("max_pool2d", "avg_pool2d")
def _pool(t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]) -> Operand:
    each = lambda value: list(value) * 2 if len(value) == 1 else list(value)  # noqa: E731
    name = "max_pool_first" if "max_pool" in str(node.target) else "avg_pool"
    attributes = {
        "window": each(a["kernel_size"]),
        "stride": each(a["stride"] or a["kernel_size"]),
        "padding": each(a["padding"]),
    }
    if (
        a["ceil_mode"]
        or a.get("divisor_override") is not None
        or set(a.get("dilation", [1])) != {1}
    ):
        return unsupported(t, node, about)
    if name == "avg_pool" and not a["count_include_pad"] and any(attributes["padding"]):
        return unsupported(t, node, about)
    return t.builder.layer(name, [a["self"]], attributes, {}, about, channels=1)


@rule("adaptive_avg_pool2d", "adaptive_avg_pool1d")
def _adaptive(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    shape = [int(n) for n in node.args[0].meta["val"].shape]
    size = list(a["output_size"])
    if size == shape[2:]:
        return a["self"]
    if set(size) == {1}:
        attributes = {"axis": list(range(2, len(shape))), "keepdims": True}
        return t.builder.add("mean", [a["self"]], attributes, **about)
    if len(size) == 1 or any(n % m for n, m in zip(shape[2:], size, strict=True)):
        return unsupported(t, node, about)
    window = [n // m for n, m in zip(shape[2:], size, strict=True)]
    attributes = {"window": window, "stride": window, "padding": [0, 0]}
    return t.builder.layer("avg_pool", [a["self"]], attributes, {}, about, channels=1)


@rule("scaled_dot_product_attention")
def _attention(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Operand:
    scale = a["scale"]
    if scale is None:
        scale = length_of(node, -1) ** -0.5
    attributes = {
        "scale": scale,
        "causal": bool(a["is_causal"]),
        "keep": round(1 - a["dropout_p"], 12),
    }
    attributes["width"] = length_of(node, -1)
    mask = [] if a["attn_mask"] is None else [a["attn_mask"]]
    return t.builder.add(
        "attention", [a["query"], a["key"], a["value"], *mask], attributes, **about
    )


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(
    t: TorchTranslation, node: torch.fx.Node, a: Arguments, about: dict[str, Any]
) -> Any:
    attributes = {
        "cell": str(node.target).removeprefix("aten.").split(".")[0],
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
