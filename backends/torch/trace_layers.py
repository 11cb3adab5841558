"""Rules that translate torch's layers, such as ``aten.linear``, to shipped layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.extend.models import Operand

from .trace_rules import (
    RULES,
    OperatorArguments,
    Rule,
    TorchTranslation,
    length_of,
    name_of,
    unsupported,
)


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
    return _scale(t, result, weights, about)


def _scale(
    t: TorchTranslation, result: Operand, weights: Sequence[Operand | None], about: dict[str, Any]
) -> Operand:
    for op, weight in zip("*+", weights, strict=True):
        if weight is not None:
            result = t.builder.add(op, [result, weight], {}, **about)
    return result


def _over_channels(
    t: TorchTranslation, a: OperatorArguments, about: dict[str, Any], *more: str
) -> list[Any]:
    """Return the weight and the bias of a norm, with axes of length 1 after the channels, after
    ``more`` arguments of the norm."""
    shape = (about["shape"][1], *[1] * (len(about["shape"]) - 2))
    return [
        None if weight is None else t.builder.reshape(weight, {**about, "shape": shape})
        for weight in (a[name] for name in (*more, "weight", "bias"))
    ]


@RULES.of("instance_norm")
def _instance_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if not a["use_input_stats"] or a["running_mean"] is not None:
        return unsupported(t, node, about, "with statistics of earlier batches")
    a.read.update(("momentum", "running_var"))
    axes = list(range(2, len(about["shape"])))
    return _normalize(t, a["input"], axes, a["eps"], _over_channels(t, a, about), about)


@RULES.of("rms_norm")
def _rms_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if a["eps"] is None:
        return unsupported(t, node, about, "eps=None depends on the dtype: give eps as a number")
    weights = {"gamma": (a["weight"], "")}
    if len(a["normalized_shape"]) > 1 or not _are_weights(t, a["weight"]):
        return _rms_equations(t, a, about)
    return t.builder.layer("rms_norm", [a["input"]], {"epsilon": a["eps"]}, weights, about)


def _rms_equations(t: TorchTranslation, a: OperatorArguments, about: dict[str, Any]) -> Operand:
    rank, value = len(about["shape"]), a["input"]
    axes = list(range(rank - len(a["normalized_shape"]), rank))
    one = tuple(1 if n in axes else length for n, length in enumerate(about["shape"]))
    square = t.builder.node("*", [value, value], about)
    mean = t.builder.node("mean", [square], about, one, axis=axes, keepdims=True)
    root = t.builder.node("sqrt", [t.builder.node("+", [mean, a["eps"]], about, one)], about, one)
    result = t.builder.node("/", [value, root], about)
    return _scale(t, result, (a["weight"], None), about)


@RULES.of("group_norm")
def _group_norm(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    each = length_of(node, 1) // a["num_groups"]
    if not _are_weights(t, a["weight"], a["bias"]):
        batch, _, *lengths = about["shape"]
        wide = {**about, "shape": (batch, a["num_groups"], each, *lengths)}
        value = t.builder.reshape(a["input"], wide)
        axes = list(range(2, len(wide["shape"])))
        value = _normalize(t, value, axes, a["eps"], (None, None), wide)
        value = t.builder.reshape(value, about)
        return _scale(t, value, _over_channels(t, a, about), about)
    weights = {"gamma": (a["weight"], ""), "beta": (a["bias"], "")}
    attributes = {"groups": a["num_groups"], "each": each, "epsilon": a["eps"]}
    return t.builder.group_norm(a["input"], attributes, weights, about, channels=1)


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
    if a["running_mean"] is None:
        a.read.update(("training", "momentum"))
        axes = [0, *range(2, len(about["shape"]))]
        return _normalize(t, a["input"], axes, a["eps"], _over_channels(t, a, about), about)
    if t.training and not a["training"]:
        return _fixed_norm(t, a, about)
    if a["momentum"] is None or not _are_weights(t, *(w for w, _ in weights.values())):
        return unsupported(t, node, about)
    own = {"epsilon": a["eps"], "momentum": round(1 - a["momentum"], 12)}
    return t.builder.layer("sample_batch_norm", [a["input"]], own, weights, about, channels=1)


def _fixed_norm(t: TorchTranslation, a: OperatorArguments, about: dict[str, Any]) -> Operand:
    """Add a batch norm whose statistics are constants: its module stays in evaluation mode."""
    a.read.add("momentum")
    mean, variance, *weights = _over_channels(t, a, about, "running_mean", "running_var")
    scaled = t.builder.standardized(a["input"], mean, variance, a["eps"], about)
    return _scale(t, scaled, weights, about)


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


def _batched(rule: Rule) -> Rule:
    """Return a rule of images that also takes one image without an axis for the batch."""

    def translate(
        t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
    ) -> Any:
        name = "input" if "input" in a else "self"
        shape, rank = t.builder.shape_of(a[name]), int(name_of(node)[-2])
        if len(shape) == rank + 2:
            return rule(t, node, a, about)
        one = {**about, "shape": (1, *about["shape"])}
        a[name] = t.builder.reshape(a[name], {**about, "shape": (1, *shape)})
        return t.builder.reshape(rule(t, node, a, one), about)

    return translate


@RULES.of("conv1d", "conv2d", "conv3d")
@_batched
def _convolution(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    kernel = t.builder.shape_of(a["weight"])
    rank = len(kernel) - 2
    padding = a["padding"] if isinstance(a["padding"], str) else _each(a["padding"], rank)
    attributes = {
        "units": kernel[0],
        "kernel": list(kernel[2:]),
        "stride": _each(a["stride"], rank),
        "padding": padding,
        "dilation": _each(a["dilation"], rank),
        "groups": a["groups"],
        "bias": a["bias"] is not None,
    }
    axes = [*range(2, rank + 2), 1, 0]
    if rank < 3 and _are_weights(t, a["weight"]):
        turn = f".transpose({', '.join(map(str, axes))})"
        weights = {"W": (a["weight"], turn)} | ({} if a["bias"] is None else {"b": (a["bias"], "")})
        return t.builder.layer(f"conv{rank}d", [a["input"]], attributes, weights, about, channels=1)
    places = _windows(attributes["kernel"], a["stride"], a["dilation"], _pads(padding, attributes))
    turned = t.builder.node("permute", [a["weight"]], about, [kernel[n] for n in axes], axes=axes)
    return t.builder.with_channels_last(
        a["input"],
        lambda x, own: _plus(
            t, t.builder.convolve(x, turned, places, a["groups"], own), a["bias"], own
        ),
        about,
    )


def _plus(
    t: TorchTranslation, value: Operand, bias: Operand | None, about: Mapping[str, Any]
) -> Operand:
    return value if bias is None else t.builder.node("+", [value, bias], about)


def _pads(padding: Sequence[int] | str, attributes: Mapping[str, Any]) -> list[list[int]]:
    """Return the entries before and after each axis; ``same`` adds an odd entry after it."""
    if not isinstance(padding, str):
        return [[n, n] for n in padding]
    totals = [
        (size - 1) * dilation if padding == "same" else 0
        for size, dilation in zip(attributes["kernel"], attributes["dilation"], strict=True)
    ]
    return [[n // 2, n - n // 2] for n in totals]


def _windows(
    size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: list[list[int]]
) -> dict[str, Any]:
    """Return the windows that a kernel or a pool sees, for :meth:`GraphBuilder.pool`."""
    rank = len(size)
    return {
        "size": list(size),
        "stride": _each(stride, rank),
        "dilation": _each(dilation, rank),
        "pads": pads,
    }


@RULES.of("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
@_batched
def _transposed_convolution(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    a.read.add("output_padding")  # the result's shape shows it
    channels, _, *size = t.builder.shape_of(a["weight"])
    pads = [[n, n] for n in _each(a["padding"], len(size))]
    places = _windows(size, a["stride"], a["dilation"], pads)
    settings = {n: {*places[n]} for n in ("size", "stride", "dilation")}
    settings["padding"] = {n for n, _ in pads}
    plain = len(size) == 2 and a["groups"] == 1 and not any(_each(a["output_padding"], 2))
    square = all(len(values) == 1 for values in settings.values())
    if plain and square and _are_weights(t, a["weight"], a["bias"]):
        own = {n.replace("size", "kernel"): min(values) for n, values in settings.items()}
        weights = {"W": (a["weight"], ".transpose(2, 3, 1, 0)"), "b": (a["bias"], "")}
        units = {"units": about["shape"][1], **own}
        return t.builder.layer("conv2d_transpose", [a["input"]], units, weights, about, channels=1)
    each = about["shape"][1] // a["groups"]
    axes = [0, *range(2, 2 + len(size)), 1]
    kernel = t.builder.node("permute", [a["weight"]], about, (channels, *size, each), axes=axes)
    return t.builder.with_channels_last(
        a["input"],
        lambda x, own: _plus(
            t, t.builder.convolve_transposed(x, kernel, places, a["groups"], own), a["bias"], own
        ),
        about,
    )


@RULES.of("unfold")
def _windows_of_axis(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    rank = len(about["shape"]) - 1
    axis, size = a["dimension"] % rank, about["shape"][-1]
    places = {**_windows([size], [a["step"]], [1], [[0, 0]]), "axes": [axis], "lowest": False}
    *shape, _ = about["shape"]
    shape.insert(axis + 1, size)
    parts = t.builder.node("windows", [a["self"]], about, shape, **places)
    axes = [n for n in range(rank + 1) if n != axis + 1]
    return t.builder.node("permute", [parts], about, axes=[*axes, axis + 1])


@RULES.of("im2col")
def _unfold(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    batch, channels, *lengths = t.builder.shape_of(a["self"])
    places, counts = _sliding(a, lengths)
    last = (batch, *lengths, channels)
    image = t.builder.node("permute", [a["self"]], about, last, axes=[0, 2, 3, 1])
    own = (batch, *counts, *places["size"], channels)
    more = {**places, "axes": [1, 2], "lowest": False}
    parts = t.builder.node("windows", [image], about, own, **more)
    axes = [0, 5, 3, 4, 1, 2]
    moved = t.builder.node("permute", [parts], about, [own[n] for n in axes], axes=axes)
    return t.builder.reshape(moved, about)


@RULES.of("col2im")
def _fold(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    batch, channels, *lengths = about["shape"]
    places, counts = _sliding(a, lengths)
    a.read.add("output_size")
    wide = (batch, channels, *places["size"], *counts)
    parts = t.builder.node("reshape", [a["self"]], about, wide)
    axes = [0, 4, 5, 2, 3, 1]
    parts = t.builder.node("permute", [parts], about, [wide[n] for n in axes], axes=axes)
    image = t.builder.overlap_add(parts, places, lengths, about)
    return t.builder.node("permute", [image], about, axes=[0, 3, 1, 2])


def _sliding(a: OperatorArguments, lengths: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
    """Return the windows of ``unfold`` or ``fold``, and their number along each axis."""
    pads = [[n, n] for n in _each(a["padding"], 2)]
    places = _windows(_each(a["kernel_size"], 2), a["stride"], a["dilation"], pads)
    columns = (places[n] for n in ("size", "stride", "dilation", "pads"))
    counts = [
        (length + sum(pair) - (size - 1) * dilation - 1) // stride + 1
        for length, size, stride, dilation, pair in zip(lengths, *columns, strict=True)
    ]
    return places, counts


@RULES.of(*(f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)))
@_batched
def _pool(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    lengths, counts = t.builder.shape_of(a["self"])[2:], about["shape"][2:]
    rank, is_max = len(lengths), "max_pool" in str(node.target)
    size = _each(a["kernel_size"], rank)
    places = _windows(size, a["stride"] or size, a.get("dilation", [1]), [])
    padding, counted = _each(a["padding"], rank), bool(a.get("count_include_pad", True))
    a.read.add("ceil_mode")  # the result's shape shows it
    ends = [
        (count - 1) * stride + (size - 1) * dilation + 1 - length - before
        for count, stride, size, dilation, length, before in zip(
            counts,
            *(places[n] for n in ("stride", "size", "dilation")),
            lengths,
            padding,
            strict=True,
        )
    ]
    places["pads"] = [[n, max(n, end)] for n, end in zip(padding, ends, strict=True)]
    rounded = any(after > before for before, after in places["pads"])
    if a.get("divisor_override") is not None or (
        not is_max and rounded and counted and any(padding)
    ):
        more = "divisor_override, or ceil_mode with padding"
        return unsupported(t, node, about, more)
    name, counted = ("max" if is_max else "mean"), counted and not rounded
    return t.builder.pool(a["self"], places, name, about, counted, channels=1)


@RULES.of("max_pool2d_with_indices", "max_pool3d_with_indices")
def _pool_with_indices(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> list[Operand]:
    about["shape"], about["kind"] = tuple(node.meta["val"][0].shape), "float"
    results = [_pool(t, node, a, about)]
    if any(user.args[1] == 1 for user in node.users):
        results.append(unsupported(t, node, about, "the places of the greatest entries"))
    return results


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
    # Without any unmasked score, torch's result is 0.
    attributes["zero_if_empty"] = bool(mask)
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
