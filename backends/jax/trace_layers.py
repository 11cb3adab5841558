"""Rules that translate dense layers, convolutions, pools, normalisations and embeddings to shipped
layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.extend.models import GraphBuilder, Operand

from . import patterns
from .jaxprs import Value, evaluate
from .patterns import peeled
from .trace import JaxTranslation, NodePlan, RecognisedLayer, node, rule


@dataclass(frozen=True)
class WeightView:
    """A weight, or a part of it: the axes of ``weight[index]`` in another order."""

    weight: Value
    index: str
    axes: tuple[int, ...]

    def rule(self, axes: Sequence[int]) -> str:
        """Return the end of a ``--map`` rule that gives the view with permuted axes."""
        order = [self.axes[a] for a in axes]
        if order == list(range(len(order))):
            return self.index
        if order == [1, 0]:
            return f"{self.index}.T"
        return f"{self.index}.transpose({', '.join(map(str, order))})"


def weight_view(value: Value) -> WeightView | None:
    """Return the weight of which a value is a part, or a permutation."""
    if value.op == "weight":
        return WeightView(value, "", tuple(range(len(value.shape))))
    if value.op == "transpose":
        inner = weight_view(value.inputs[0])
        if inner is None:
            return None
        axes = tuple(inner.axes[a] for a in value.params["permutation"])
        return WeightView(inner.weight, inner.index, axes)
    cut = value.inputs[0] if value.op == "reshape" else value
    if cut.op != "slice" or cut.inputs[0].op != "weight":
        return None
    index, shape = [], []
    source = cut.inputs[0]
    starts, stops = cut.params["start_indices"], cut.params["limit_indices"]
    dropped = len(cut.shape) - len(value.shape)
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if axis < dropped and stop - start == 1:
            index.append(str(start))
        else:
            whole = (start, stop) == (0, source.shape[axis])
            index.append(":" if whole else f"{start}:{stop}")
            shape.append(stop - start)
    if tuple(shape) != value.shape or set(cut.params["strides"] or (1,)) != {1}:
        return None
    while len(index) > 1 and index[-1] == ":":
        index.pop()
    return WeightView(source, f"[{', '.join(index)}]", tuple(range(len(shape))))


@dataclass(frozen=True)
class Contraction:
    """A product of two arrays by the labels of their axes, as in ``einsum``."""

    left: Value
    right: Value
    left_labels: tuple[int, ...]
    right_labels: tuple[int, ...]
    labels: tuple[int, ...]

    def swapped(self) -> Contraction:
        """Return the same product with its arrays in the other order."""
        return Contraction(self.right, self.left, self.right_labels, self.left_labels, self.labels)


def contraction(t: JaxTranslation, value: Value) -> Contraction | None:
    """Return the product that computes a value, which may be transposed."""
    axes: Sequence[int] = range(len(value.shape))
    if value.op == "transpose" and t.alone(value.inputs[0]):
        axes, value = value.params["permutation"], value.inputs[0]
    if value.op != "dot_general":
        return None
    left, right = value.inputs
    (left_sum, right_sum), (left_batch, right_batch) = value.params["dimension_numbers"]
    one = list(range(len(left.shape)))
    other = list(range(len(one), len(one) + len(right.shape)))
    for a, b in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        other[b] = one[a]
    free = [a for a in one if a not in {*left_sum, *left_batch}]
    free += [b for n, b in enumerate(other) if n not in {*right_sum, *right_batch}]
    labels = [*left_batch, *free]
    return Contraction(left, right, tuple(one), tuple(other), tuple(labels[a] for a in axes))


def dense_of(
    t: JaxTranslation, c: Contraction
) -> tuple[Value, WeightView, list[int], int, tuple[int, ...]] | None:
    """Return the input, the weight, the order of the weight's axes, the number of axes that are
    summed, and the lengths of the output's new axes, if a product is a dense layer."""
    for way in (c, c.swapped()):
        view = weight_view(way.right)
        if view is None or way.left.op == "weight" or way.left.number is not None:
            continue
        summed = [n for n in way.left_labels if n in way.right_labels and n not in way.labels]
        free = [n for n in way.left_labels if n not in way.right_labels]
        new = [n for n in way.labels if n not in way.left_labels]
        straight = list(way.left_labels) == free + summed and list(way.labels) == free + new
        if straight and summed and new and sorted(way.right_labels) == sorted(summed + new):
            axes = [way.right_labels.index(n) for n in (*summed, *new)]
            lengths = tuple(way.right.shape[way.right_labels.index(n)] for n in new)
            return way.left, view, axes, len(summed), lengths
    return None


def dense_layer(t: JaxTranslation, product: Value, bias: WeightView | None) -> NodePlan | None:
    c = contraction(t, product)
    parts = None if c is None else dense_of(t, c)
    if parts is None:
        return None
    x, view, axes, count, lengths = parts
    before = x.shape[: len(x.shape) - count]
    units = math.prod(lengths)
    weights = {"W": (view.weight, view.rule(axes))}
    if bias is not None:
        weights["b"] = (bias.weight, bias.rule(range(len(lengths))))
    return RecognisedLayer(
        "dense",
        x,
        {"units": units, "bias": bias is not None},
        weights,
        (*before, math.prod(x.shape[len(before) :])),
        (*before, units),
    ).match(t)


def _bias(value: Value, shape: Sequence[int]) -> WeightView | None:
    """Return the weight, or the part of it, that is added to the last axes of a value."""
    value = peeled(value)
    for part in (value, *value.inputs[: value.op == "reshape"]):
        view = weight_view(part)
        if view is not None and part.shape == tuple(shape):
            return view
    return None


@rule("add")
def _layer_with_bias(t: JaxTranslation, v: Value) -> NodePlan | None:
    for product, other in (v.inputs, v.inputs[::-1]):
        if not t.alone(product) or product.shape != v.shape:
            continue
        if product.op == "conv_general_dilated":
            vector = patterns.vector(other, v.shape[-1])
            if vector is not None and (match := _convolution(t, product, vector)) is not None:
                return match
        c = contraction(t, product)
        parts = None if c is None else dense_of(t, c)
        if parts is not None and (bias := _bias(other, parts[-1])) is not None:
            return dense_layer(t, product, bias)
    return None


@rule("add", "mul", "div")
def _normalisation(t: JaxTranslation, v: Value) -> NodePlan | None:
    norm = patterns.normalisation(v)
    if norm is None:
        return None
    settings: dict[str, Any] = {"epsilon": norm.epsilon}
    if norm.layer == "batch_norm":
        path = v.modules[-1][0] if v.modules else ""
        settings["momentum"] = t.momentum.get(path, 0.99)
        if settings["momentum"] is None:
            return None
    weights = {name: (weight, "") for name, weight in norm.weights.items()}
    return RecognisedLayer(norm.layer, norm.x, settings, weights).match(t)


@rule("conv_general_dilated")
def _plain_convolution(t: JaxTranslation, v: Value) -> NodePlan | None:
    return _convolution(t, v, None)


def _convolution(t: JaxTranslation, v: Value, bias: Value | None) -> NodePlan | None:
    p, (x, kernel) = v.params, v.inputs
    view = weight_view(kernel)
    rank = len(v.shape) - 2
    _, weight, _ = p["dimension_numbers"]
    if p["batch_group_count"] != 1:
        return None
    settings = {
        "units": v.shape[-1],
        "kernel": _plain([kernel.shape[a] for a in weight[2:]]),
        "stride": _plain(p["window_strides"]),
        "dilation": _plain(p["rhs_dilation"]),
        "padding": _sides(p["padding"]),
        "groups": int(p["feature_group_count"]),
        "bias": bias is not None,
    }
    plan = None
    if view is not None and rank in (1, 2) and set(p["lhs_dilation"]) == {1}:
        end = view.rule([*weight[2:], weight[1], weight[0]])
        weights = {"W": (view.weight, end)} | ({} if bias is None else {"b": (bias, "")})
        plan = RecognisedLayer(f"conv{rank}d", x, settings, weights).match(t)
    return plan if plan is not None or bias is not None else _equations(v)


def _equations(v: Value) -> NodePlan | None:
    """Return a convolution that no shipped layer has: with a computed kernel, or of an image with
    zeros between its entries, which is a transposed convolution."""
    p, (x, kernel) = v.params, v.inputs
    groups, size = int(p["feature_group_count"]), list(kernel.shape[:-2])
    windows = {
        "size": size,
        "stride": list(p["window_strides"]),
        "dilation": list(p["rhs_dilation"]),
        "pads": [list(pair) for pair in p["padding"]],
    }
    if set(p["lhs_dilation"]) == {1}:
        return NodePlan((x, kernel), lambda g, o, a: g.convolve(o[0], o[1], windows, groups, a))
    reach = [(n - 1) * step for n, step in zip(size, p["rhs_dilation"], strict=True)]
    pads = [[n - low, n - high] for n, (low, high) in zip(reach, p["padding"], strict=True)]
    if groups != 1 or set(p["window_strides"]) != {1} or any(low < 0 for low, _ in pads):
        return None
    windows["stride"] = list(p["lhs_dilation"])
    windows["pads"] = [[low, max(high, 0)] for low, high in pads]

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        turned = o[1]
        for axis, length in enumerate(size):
            turned = g.cut(turned, axis, (length - 1, -1, -1), about)
        rank = len(size)
        axes = [rank, *range(rank), rank + 1]
        shape = [kernel.shape[a] for a in axes]
        turned = g.node("permute", [turned], about, shape, axes=axes)
        return g.convolve_transposed(o[0], turned, windows, groups, about)

    return NodePlan((x, kernel), emit)


def _plain(lengths: Sequence[Any]) -> Any:
    """Return one number for equal numbers, e.g. for a square kernel."""
    listed = [int(n) for n in lengths]
    return listed[0] if len(set(listed)) == 1 else listed


def _sides(padding: Sequence[tuple[int, int]]) -> Any:
    """Return one number for equal padding on all sides, else the padding of each side."""
    sides = [[int(n) for n in pair] for pair in padding]
    return sides[0][0] if len({n for pair in sides for n in pair}) == 1 else sides


def _window(sum_of: Value) -> dict[str, Any] | None:
    """Return the settings of a pool of images with channels last."""
    p = sum_of.params
    if len(sum_of.shape) != 4 or {*p["base_dilation"], *p["window_dilation"]} != {1}:
        return None
    sizes, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
    outside = [sizes[0], sizes[3], strides[0], strides[3]]
    if outside != [1] * 4 or any(n != 0 for pair in (pads[0], pads[3]) for n in pair):
        return None
    inner = (sizes[1:3], strides[1:3])
    return {
        "window": _plain(inner[0]),
        "stride": _plain(inner[1]),
        "padding": _sides(pads[1:3]),
    }


@rule("reduce_window_max")
def _max_pool(t: JaxTranslation, v: Value) -> NodePlan | None:
    settings = _window(v)
    return (
        None
        if settings is None
        else RecognisedLayer("max_pool_first", v.inputs[0], settings, {}).match(t)
    )


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _windows(t: JaxTranslation, v: Value) -> NodePlan | None:
    """Return a reduction of windows as equations."""
    p, x, kind = v.params, v.inputs[0], v.op.rpartition("_")[2]
    columns = (p["window_dimensions"], p["window_strides"], p["window_dilation"], p["padding"])
    places = list(zip(*columns, strict=True))
    axes = [a for a, place in enumerate(places) if place != (1, 1, 1, (0, 0))]
    if set(p["base_dilation"]) != {1} or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    size, stride, dilation, pads = ([list(column)[a] for a in axes] for column in columns)
    windows: dict[str, Any] = {
        "axes": axes,
        "size": size,
        "stride": stride,
        "dilation": dilation,
        "pads": [list(pair) for pair in pads],
        "lowest": kind != "sum",
    }
    last = axes[-1] + 1
    wide = (*v.shape[:last], *size, *v.shape[last:])
    own: dict[str, Any] = {"axis": list(range(last, last + len(size))), "keepdims": False}

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        value = g.node("negative", o, about, x.shape) if kind == "min" else o[0]
        parts = g.node("windows", [value], about, wide, **windows)
        reduced = g.node("sum" if kind == "sum" else "max", [parts], about, **own)
        return g.node("negative", [reduced], about) if kind == "min" else reduced

    return NodePlan((x,), emit)


@rule("div", "mul")
def _average_pool(t: JaxTranslation, v: Value) -> NodePlan | None:
    total, count = v.inputs if v.inputs[0].op == "reduce_window_sum" else v.inputs[::-1]
    if total.op != "reduce_window_sum" or not t.alone(total):
        return None
    settings = _window(total)
    if settings is None or (v.op == "div" and total is not v.inputs[0]):
        return None
    entries = math.prod(total.params["window_dimensions"])
    if v.op == "div" and count.number is not None and count.uniform() is None:
        ones = np.ones(total.inputs[0].shape, np.float32)
        (inside,) = evaluate(total.primitive, total.params, [ones]) or [ones]
        if inside.shape != count.shape or (inside != count.number).any():
            return None
        settings["count_padding"] = False
    elif not count.is_number(entries if v.op == "div" else 1 / entries):
        return None
    return RecognisedLayer("avg_pool", total.inputs[0], settings, {}).match(t)


@rule("gather")
def _gather(t: JaxTranslation, v: Value) -> NodePlan | None:
    table, indices = v.inputs
    p = v.params["dimension_numbers"]
    axes = list(p.start_index_map)
    if len(axes) == 1 and len(p.operand_batching_dims) == len(table.shape) - 1:
        return _along(v)
    if len(axes) != 1 or tuple(p.collapsed_slice_dims) != tuple(axes) or p.operand_batching_dims:
        return None
    axis = axes[0]
    sizes = [n for a, n in enumerate(v.params["slice_sizes"]) if a != axis]
    if sizes != [n for a, n in enumerate(table.shape) if a != axis]:
        return None
    index = _row_indices(indices.inputs[0] if indices.op == "reshape" else indices)
    at = [a for a in range(len(v.shape)) if a not in p.offset_dims]
    if at != list(range(axis, axis + len(at))) or len(index.shape) != len(at):
        return None
    if table.op == "weight" and axis == 0 and len(table.shape) == 2:
        settings = {"rows": table.shape[0], "units": table.shape[1]}
        embedding = RecognisedLayer("embedding", index, settings, {"table": (table, "")}).match(t)
        if embedding is not None:
            return embedding
    if not index.shape and (number := index.uniform()) is not None:
        length = table.shape[axis]
        return node("select", table, axis=axis, index=int(number) % length, length=length)
    return node("take", table, index, axis=axis)


def _along(v: Value) -> NodePlan | None:
    """Return ``take_along_axis``: the other axes of the array and the indices are the same."""
    table, indices = v.inputs
    p, rank = v.params["dimension_numbers"], len(table.shape)
    (axis,) = p.start_index_map
    index = _row_indices(indices.inputs[0] if indices.op == "reshape" else indices)
    others = [a for a in range(rank) if a != axis]
    same = tuple(p.operand_batching_dims) == tuple(p.start_indices_batching_dims) == tuple(others)
    if not same or index.shape != v.shape or p.collapsed_slice_dims != (axis,):
        return None
    return node("take_along_axis", table, index, axis=axis)


def _row_indices(value: Value) -> Value:
    """Return the indices before negative numbers are counted from the end, and before limits."""
    if value.op == "select_n" and value.inputs[0].op == "lt":
        below, zero = value.inputs[0].inputs
        if zero.uniform() == 0 and below is value.inputs[1]:
            return _row_indices(below)
    if value.op == "clamp" and value.inputs[0].uniform() == 0:
        return _row_indices(value.inputs[1])
    if value.op == "reshape" and value.inputs[0].op in ("select_n", "clamp"):
        inner = _row_indices(value.inputs[0])
        return inner if inner.shape == value.shape else value
    return value
