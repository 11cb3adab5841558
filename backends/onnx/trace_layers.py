"""The rules of ONNX operators with weights or windows: products, convolutions, norms and pools."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.extend.models import Operand, short_pads

from .trace_rules import RULES, About, Result, plain


def turned(t: Any, name: str, transpose: bool) -> tuple[str, str] | None:
    """Return the weight of a matrix, and the end of its rule of ``--map``; None if the value is
    no view of a weight."""
    if name not in t.views or len(t.shape(name)) != 2:
        return None
    weight, turn = t.views[name]
    if not transpose:
        return weight, turn
    return (weight, {"": ".T", ".T": ""}[turn]) if turn in ("", ".T") else None


def is_vector(t: Any, name: str, length: int) -> bool:
    """Return whether a value is a weight with this number of entries, all along the last axis."""
    return (
        name in t.views
        and not t.views[name][1]
        and math.prod(t.shape(name)) == length == (t.shape(name)[-1:] or (0,))[0]
    )


def dense(
    t: Any, x: str, matrix: tuple[str, str], bias: str | None, units: int, about: About
) -> Operand:
    """Add a dense layer."""
    weights = {"W": matrix} | ({} if bias is None else {"b": t.views[bias]})
    settings = {"units": units, "bias": bias is not None}
    return t.layer("dense", [t.get(x)], settings, weights, about)


@RULES.of("Gemm")
def _gemm(t: Any, node: Any, about: About) -> Result:
    a, (x, w, *more) = t.attributes(node), node.input
    alpha, beta, units = plain(a.get("alpha", 1.0)), plain(a.get("beta", 1.0)), about["shape"][-1]
    bias = more[0] if more and more[0] else None
    matrix = turned(t, w, bool(a.get("transB")))
    plain_bias = bias is None or (beta == 1 and is_vector(t, bias, units))
    if not a.get("transA") and alpha == 1 and matrix is not None and plain_bias:
        return dense(t, x, matrix, bias, units, about)
    operands: list[Operand] = []
    for name, turn in ((x, a.get("transA")), (w, a.get("transB"))):
        value = t.get(name)
        shape = t.shape(name)[::-1]
        operands.append(
            t.builder.node("permute", [value], about, shape, axes=[1, 0]) if turn else value
        )
    result = t.builder.node("@", operands, about)
    result = result if alpha == 1 else t.builder.node("*", [alpha, result], about)
    if bias is None:
        return result
    added = (
        t.get(bias) if beta == 1 else t.builder.node("*", [beta, t.get(bias)], about, t.shape(bias))
    )
    return t.builder.node("+", [result, added], about)


@RULES.of("MatMul")
def _matmul(t: Any, node: Any, about: About) -> Result:
    x, w = node.input
    matrix = turned(t, w, transpose=False)
    if matrix is None:
        return t.builder.node("@", [t.get(x), t.get(w)], about)
    units = about["shape"][-1]
    following = t.sole_user(node.output[0])
    if following is not None and following.op_type == "Add":
        bias = next((n for n in following.input if n != node.output[0]), "")
        if is_vector(t, bias, units) and t.shape(following.output[0]) == about["shape"]:
            t.done.add(id(following))
            result = dense(t, x, matrix, bias, units, about)
            t.operands[following.output[0]] = result
            return result
    return dense(t, x, matrix, None, units, about)


def pads_of(
    t: Any, a: Mapping[str, Any], shape: Sequence[int], kernel: Sequence[int], ceil: bool = False
) -> list[list[int]]:
    """Return the padding before and after each axis of an image.

    ``shape`` has the axes of the image. With ``ceil``, the padding after an axis is enlarged to the
    last window that starts inside the image and its padding.
    """
    rank = len(kernel)
    strides = a.get("strides", [1] * rank)
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, a.get("dilations", [1] * rank), strict=True)]
    way = a.get("auto_pad", "NOTSET")
    pairs: list[list[int]] = []
    for axis in range(rank):
        length, stride, window = shape[axis], strides[axis], wide[axis]
        if way in ("SAME_UPPER", "SAME_LOWER"):
            total = max((math.ceil(length / stride) - 1) * stride + window - length, 0)
            low = total // 2 if way == "SAME_UPPER" else total - total // 2
            pairs.append([low, total - low])
            continue
        pads = [0] * (2 * rank) if way == "VALID" else a.get("pads", [0] * (2 * rank))
        low, high = pads[axis], pads[axis + rank]
        if ceil:
            rest = (length + low + high - window) % stride
            extra = stride - rest if rest else 0
            starts = (length + low + high + extra - window) // stride * stride
            high += extra if starts < length + low else 0
        pairs.append([low, high])
    return pairs


@RULES.of("Conv")
def _conv(t: Any, node: Any, about: About) -> Result:
    x, w, *more = node.input
    shape, a = t.shape(w), t.attributes(node)
    rank = len(shape) - 2
    bias = more[0] if more and more[0] else None
    known = w in t.views and not t.views[w][1] and (bias is None or bias in t.views)
    if rank not in (1, 2) or not known:
        return None
    settings = {
        "units": shape[0],
        "kernel": list(shape[2:]),
        "stride": list(a.get("strides", [1] * rank)),
        "padding": short_pads(pads_of(t, a, t.shape(x)[2:], shape[2:])),
        "dilation": list(a.get("dilations", [1] * rank)),
        "groups": a.get("group", 1),
        "bias": bias is not None,
    }
    turn = f".transpose({', '.join(map(str, [*range(2, rank + 2), 1, 0]))})"
    weights = {"W": (t.views[w][0], turn)} | ({} if bias is None else {"b": t.views[bias]})
    return t.layer(f"conv{rank}d", [t.get(x)], settings, weights, about, 1)


@RULES.of("BatchNormalization")
def _batch_norm(t: Any, node: Any, about: About) -> Result:
    a = t.attributes(node)
    names = dict(
        zip(("gamma", "beta", "moving_mean", "moving_variance"), node.input[1:], strict=False)
    )
    if a.get("training_mode") or any(n not in t.views for n in names.values()):
        return None
    settings = {
        "epsilon": plain(a.get("epsilon", 1e-5)),
        "momentum": plain(a.get("momentum", 0.9)),
    }
    weights = {n: t.views[name] for n, name in names.items()}
    return t.layer("batch_norm", [t.get(node.input[0])], settings, weights, about, 1)


@RULES.of("LayerNormalization")
def _layer_norm(t: Any, node: Any, about: About) -> Result:
    a, rank = t.attributes(node), len(about["shape"])
    names = dict(zip(("gamma", "beta"), [n for n in node.input[1:] if n], strict=False))
    if a.get("axis", -1) % rank != rank - 1 or any(n not in t.views for n in names.values()):
        return None
    settings = {"epsilon": plain(a.get("epsilon", 1e-5))}
    if len(names) < 2:
        return None
    weights = {n: t.views[name] for n, name in names.items()}
    return t.layer("layer_norm", [t.get(node.input[0])], settings, weights, about)


@RULES.of("GroupNormalization", "InstanceNormalization")
def _group_norm(t: Any, node: Any, about: About) -> Result:
    x, gamma, beta = node.input
    a, channels = t.attributes(node), about["shape"][1]
    groups = a.get("num_groups", channels)
    if t.shape(gamma) != (channels,) or gamma not in t.views or beta not in t.views:
        return None
    settings = {
        "groups": groups,
        "each": channels // groups,
        "epsilon": plain(a.get("epsilon", 1e-5)),
    }
    views = {"gamma": t.views[gamma], "beta": t.views[beta]}
    weights = {n: (t.get(weight), turn) for n, (weight, turn) in views.items()}
    return t.builder.group_norm(t.get(x), settings, weights, about, channels=1)


@RULES.of("MaxPool", "AveragePool")
def _pool(t: Any, node: Any, about: About) -> Result:
    a, shape = t.attributes(node), t.shape(node.input[0])
    kernel = list(a["kernel_shape"])
    strides, dilations = a.get("strides", [1] * len(kernel)), a.get("dilations", [1] * len(kernel))
    if len([n for n in node.output if n]) > 1:
        return None
    pads = pads_of(t, a, shape[2:], kernel, bool(a.get("ceil_mode")))
    op = "max" if node.op_type == "MaxPool" else "mean"
    counted = bool(a.get("count_include_pad")) and not a.get("ceil_mode")
    windows = {"size": kernel, "stride": list(strides), "dilation": list(dilations), "pads": pads}
    return t.builder.with_channels_last(
        t.get(node.input[0]), lambda x, last: t.builder.pool(x, windows, op, last, counted), about
    )


@RULES.of("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(t: Any, node: Any, about: About) -> Result:
    axes = list(range(2, len(about["shape"])))
    op = "mean" if node.op_type == "GlobalAveragePool" else "max"
    return t.builder.node(op, [t.get(node.input[0])], about, axis=axes, keepdims=True)


@RULES.of("LRN")
def _response_norm(t: Any, node: Any, about: About) -> Result:
    a = t.attributes(node)
    size = a["size"]
    low, axis = (size - 1) // 2, len(about["shape"]) - 1
    windows: dict[str, Any] = {
        "size": [size],
        "stride": [1],
        "dilation": [1],
        "pads": [[low, size - 1 - low]],
        "axes": [axis],
        "lowest": False,
    }

    def normalize(value: Operand, last: About) -> Operand:
        square = t.builder.node("*", [value, value], last)
        cut = t.builder.node("windows", [square], last, (*last["shape"], size), **windows)
        total = t.builder.node("sum", [cut], last, axis=[axis + 1], keepdims=False)
        scaled = t.builder.node("*", [plain(a.get("alpha", 1e-4)) / size, total], last)
        below = t.builder.node("+", [plain(a.get("bias", 1.0)), scaled], last)
        power = t.builder.node("**", [below, plain(a.get("beta", 0.75))], last)
        return t.builder.node("/", [value, power], last)

    return t.builder.with_channels_last(t.get(node.input[0]), normalize, about)


@RULES.of("Pad")
def _pad(t: Any, node: Any, about: About) -> Result:
    a, shape = t.attributes(node), t.shape(node.input[0])
    mode, pads, value = a.get("mode", "constant"), a.get("pads"), a.get("value", 0)
    axes = list(range(len(shape)))
    if pads is None:
        known = [t.number(n) if n else None for n in [*node.input[1:], "", ""][:3]]
        if known[0] is None:
            return None
        pads = known[0].tolist()
        value = 0 if known[1] is None else known[1].ravel()[0]
        axes = axes if known[2] is None else [n % len(shape) for n in known[2].tolist()]
    if mode != "constant" or value != 0 or any(n < 0 for n in pads):
        return None
    pairs = {axis: (pads[n], pads[n + len(axes)]) for n, axis in enumerate(axes)}
    pairs = {axis: pair for axis, pair in sorted(pairs.items()) if any(pair)}
    return t.builder.pad(t.get(node.input[0]), pairs, about)


@RULES.of("Resize")
def _resize(t: Any, node: Any, about: About) -> Result:
    a, old, new = t.attributes(node), t.shape(node.input[0]), about["shape"]
    way = a.get("coordinate_transformation_mode", "half_pixel")
    # With other settings, the copies of an entry are not those at its own positions.
    copies_entries = way == "half_pixel" or (
        way == "asymmetric" and a.get("nearest_mode") == "floor"
    )
    whole = all(m % n == 0 for n, m in zip(old, new, strict=True))
    if a.get("mode", "nearest") != "nearest" or not whole or not copies_entries:
        return None
    x, shape = t.get(node.input[0]), list(old)
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        times = m // n
        if times == 1:
            continue
        single = (*shape[: axis + 1], 1, *shape[axis + 1 :])
        copies = (*shape[: axis + 1], times, *shape[axis + 1 :])
        x = t.builder.node("reshape", [x], about, single)
        x = t.builder.node("concat", [x] * times, about, copies, axis=axis + 1)
        shape[axis] = m
        x = t.builder.node("reshape", [x], about, shape)
    return x
