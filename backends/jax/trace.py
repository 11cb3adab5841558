"""Translate the values of a jaxpr into a neutral graph, with layers where it is possible.

:mod:`harness.runtime.own_model.graph` defines the operators of the graph.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.extend.models import GraphBuilder, Operand

from . import patterns
from .jaxprs import Value, alone, needed
from .patterns import peeled

UNARY = {
    **{n: n for n in ("exp", "log", "tanh", "sqrt", "erf", "sin", "cos", "floor", "abs", "sign")},
    "logistic": "sigmoid",
    "neg": "negative",
    "not": "~",
    "stop_gradient": "stop_gradient",
}
BINARY = {
    "add": "+",
    "add_any": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "pow": "**",
    "max": "maximum",
    "min": "minimum",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
}
REDUCTIONS = {"reduce_sum": "sum", "reduce_max": "max"}
# Functions that are recognised by their numbers.
FUNCTIONS = tuple(patterns.FUNCTIONS)
# A score below this number gives 0 in a softmax.
LOWEST = -1e4

# A value that a node needs, or a number.
Needed = Value | int | float | bool
# Adds nodes for a value; its arguments are the builder, the operands and GraphBuilder.add's others.
Emit = Callable[[GraphBuilder, list[Operand], dict[str, Any]], Operand]


@dataclass(frozen=True)
class Match:
    """The translation of a value: the values that it needs, and a function that adds its nodes."""

    needs: tuple[Needed, ...]
    emit: Emit
    layer: LayerCall | None = None


class Translation:
    """The translation of traced values into a graph.

    Args:
        builder: The graph.
        results: The values that the graph must compute.
        momentum: The momentum of each batch norm, by the path of its module.
        layers: Whether to recognise layers; a step of a loop has operators only.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        results: Sequence[Value],
        momentum: Mapping[str, float],
        layers: bool = True,
    ) -> None:
        self.builder, self.momentum, self.layers = builder, momentum, layers
        self.used = needed(results)
        self.weights = {v.name for v in self.used if v.op == "weight"}
        self.operands: dict[Value, Operand] = {}

        self.plan: dict[Value, Match] = {}
        # Parts of weights that have several uses, so that no layer can own them.
        self.barred: set[str] = set()
        while True:
            self._plan(results)
            conflicts = self._conflicts() - self.barred
            if not conflicts:
                break
            self.barred |= conflicts

    def _plan(self, results: Sequence[Value]) -> None:
        self.plan = {}
        waiting = list(results)
        while waiting:
            value = waiting.pop()
            if value in self.plan:
                continue
            self.plan[value] = match = self.match(value)
            waiting += [v for v in match.needs if isinstance(v, Value)]

    def _conflicts(self) -> set[str]:
        """Return the parts of weights that belong to several layers, or to a layer and to an
        operator. A table of an embedding may also be a transposed dense layer."""
        roles: dict[str, set[str]] = {}
        for match in self.plan.values():
            if match.layer is not None:
                own = match.layer.roles()
                for part, role in own:
                    twice = sum(part == other for other, _ in own) > 1
                    roles.setdefault(part, set()).update([role, "twice"] if twice else [role])
            else:
                for need in match.needs:
                    if isinstance(need, Value) and need.op == "weight":
                        roles.setdefault(need.name, set()).add("operator")
        whole = {part.partition("[")[0] for part in roles if "[" in part} & set(roles)
        return whole | {part for part, found in roles.items() if len(found) > 1}

    def owner_of(self, names: Sequence[str]) -> str:
        """Return the module that owns weights: the start of their names, if no other weights have
        it, else the name of the first."""
        if not names:
            return ""
        prefix = names[0].rpartition(".")[0]
        siblings = [n for n in self.weights if n.rpartition(".")[0] == prefix]
        return prefix if prefix and len(siblings) <= len(names) else names[0]

    def emit(self, ordered: Sequence[Value]) -> None:
        """Add the nodes of all planned values, in the order of execution."""
        for value in [v for v in self.plan if not v.order] + list(ordered):
            if value not in self.plan or value in self.operands:
                continue
            match = self.plan[value]
            operands = [self.operands[n] if isinstance(n, Value) else n for n in match.needs]
            self.operands[value] = match.emit(self.builder, operands, about_of(value))

    def match(self, value: Value) -> Match:
        """Return the translation of a value: the first rule that applies."""
        if not value.inputs and value.op in LEAVES:
            return LEAVES[value.op](value)
        if value.op in ("constant", "iota") and value.number is not None:
            return node("constant")
        names = ("*", value.op) if value.number is None else (value.op,)
        for translate in (rule for name in names for rule in RULES.get(name, ())):
            match = translate(self, value)
            if match is not None:
                return match
        if value.number is not None:
            return node("constant")
        attributes = {"operator": value.op, "random": value.op.startswith(("random", "threefry"))}
        return node("unsupported", *value.inputs, **attributes)

    def alone(self, value: Value) -> bool:
        """Return whether only one used value uses a value."""
        return alone(value, self.used)


def about_of(value: Value) -> dict[str, Any]:
    """Return shape, kind, modules, place and numbers, as :meth:`GraphBuilder.add` takes them."""
    return {
        "shape": value.shape,
        "kind": value.kind,
        "modules": value.modules,
        "place": value.place,
        "values": value.number,
    }


def node(op: str, *needs: Needed, **attributes: Any) -> Match:
    """Return a translation into one node."""
    return Match(needs, lambda g, operands, about: g.add(op, operands, attributes, **about))


@dataclass(frozen=True)
class LayerCall:
    """A call of a shipped layer.

    Attributes:
        layer: The name of the layer.
        x: The input.
        settings: The layer's attributes.
        weights: The weight of each parameter, and the end of its ``--map`` rule.
        before: The shape to which the input is reshaped; None if it keeps its shape.
        after: The shape of the layer's result; None for the value's own shape.
    """

    layer: str
    x: Value
    settings: Mapping[str, Any]
    weights: Mapping[str, tuple[Value, str]]
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None

    def match(self, t: Translation) -> Match | None:
        """Return the translation; None in a loop, or if a weight also has another use."""
        parts = {p for w, end in self.weights.values() for p in (w.name, self._part(w, end))}
        if not t.layers or parts & t.barred:
            return None
        owner = t.owner_of([w.name for w, _ in self.weights.values()])
        ends = [end for _, end in self.weights.values()]
        if "[" in "".join(ends):
            owner = re.sub(r"\W+", ".", next(iter(self.weights.values()))[0].name + ends[0])

        def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
            source = o[0] if self.before is None else reshape(g, o[0], self.before, about)
            weights = dict(zip(self.weights, zip(o[1:], ends, strict=True), strict=True))
            more = about if self.after is None else {**about, "shape": self.after}
            made = g.layer(self.layer, [source], self.settings, weights, more)
            if owner:
                g.graph["nodes"][-1]["attributes"]["owner"] = owner.rstrip(".")
            return reshape(g, made, about["shape"], about)

        return Match((self.x, *(w for w, _ in self.weights.values())), emit, self)

    def _part(self, weight: Value, end: str) -> str:
        return weight.name + end.partition("]")[0]

    def roles(self) -> list[tuple[str, str]]:
        """Return the part of each weight, and its role: the layer, its parameter and the turn."""
        roles = []
        all_weights = sorted(w.name + end for w, end in self.weights.values())
        for parameter, (weight, end) in self.weights.items():
            tied = self.layer.startswith("dense") and end == ".T"
            role = "table" if self.layer == "embedding" or tied else f"{self.layer} {all_weights}"
            roles.append((self._part(weight, end), f"{role} {parameter if not tied else 'table'}"))
        return roles


LEAVES: Mapping[str, Callable[[Value], Match]] = {
    "input": lambda v: node("input", name=v.name),
    "weight": lambda v: node("weight", name=v.name),
}
Rule = Callable[[Translation, Value], Match | None]
RULES: dict[str, list[Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for primitives; ``*`` stands for every primitive."""

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(rule)
        return rule

    return register


def reshape(g: GraphBuilder, operand: Operand, shape: Sequence[int], about: Any) -> Operand:
    """Add a reshape, unless the operand has this shape."""
    if g.shape_of(operand) == tuple(shape):
        return operand
    return g.add("reshape", [operand], {}, **{**about, "shape": tuple(shape), "values": None})


def permute(g: GraphBuilder, operand: Operand, axes: Sequence[int], about: Any) -> Operand:
    """Add a permutation of axes, unless it changes nothing."""
    if list(axes) == list(range(len(axes))):
        return operand
    shape = tuple(g.shape_of(operand)[a] for a in axes)
    more = {**about, "shape": shape, "values": None}
    return g.add("permute", [operand], {"axes": list(axes)}, **more)


# Layers.


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


def contraction(t: Translation, value: Value) -> Contraction | None:
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
    t: Translation, c: Contraction
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


def _dense(t: Translation, product: Value, bias: Value | None) -> Match | None:
    c = contraction(t, product)
    found = None if c is None else dense_of(t, c)
    if found is None:
        return None
    x, view, axes, count, lengths = found
    before = x.shape[: len(x.shape) - count]
    units = math.prod(lengths)
    weights = {"W": (view.weight, view.rule(axes))} | ({} if bias is None else {"b": (bias, "")})
    return LayerCall(
        "dense",
        x,
        {"units": units, "bias": bias is not None},
        weights,
        (*before, math.prod(x.shape[len(before) :])),
        (*before, units),
    ).match(t)


def _bias(value: Value, shape: Sequence[int]) -> Value | None:
    """Return the weight that is added to the last axes of a value of this shape."""
    weight = peeled(value)
    if weight.op == "reshape":
        weight = weight.inputs[0]
    return weight if weight.op == "weight" and weight.shape == tuple(shape) else None


@rule("add")
def _layer_with_bias(t: Translation, v: Value) -> Match | None:
    for product, other in (v.inputs, v.inputs[::-1]):
        if not t.alone(product) or product.shape != v.shape:
            continue
        if product.op == "conv_general_dilated":
            bias = patterns.vector(other, v.shape[-1])
            if bias is not None and (match := _convolution(t, product, bias)) is not None:
                return match
        c = contraction(t, product)
        found = None if c is None else dense_of(t, c)
        if found is not None and (bias := _bias(other, found[-1])) is not None:
            return _dense(t, product, bias)
    return None


@rule("add", "mul", "div")
def _normalisation(t: Translation, v: Value) -> Match | None:
    found = patterns.normalisation(v)
    if found is None:
        return None
    settings: dict[str, Any] = {"epsilon": found.epsilon}
    if found.layer == "batch_norm":
        path = v.modules[-1][0] if v.modules else ""
        settings["momentum"] = t.momentum.get(path, 0.99)

    weights = {name: (weight, "") for name, weight in found.weights.items()}
    return LayerCall(found.layer, found.x, settings, weights).match(t)


@rule("conv_general_dilated")
def _plain_convolution(t: Translation, v: Value) -> Match | None:
    return _convolution(t, v, None)


def _convolution(t: Translation, v: Value, bias: Value | None) -> Match | None:
    p, (x, kernel) = v.params, v.inputs
    view = weight_view(kernel)
    rank = len(v.shape) - 2
    image, weight, out = p["dimension_numbers"]
    last = (0, rank + 1, *range(1, rank + 1))
    if (
        view is None
        or rank not in (1, 2)
        or tuple(image) != last
        or tuple(out) != last
        or set(p["lhs_dilation"]) != {1}
        or p["batch_group_count"] != 1
    ):
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
    end = view.rule([*weight[2:], weight[1], weight[0]])
    weights = {"W": (view.weight, end)} | ({} if bias is None else {"b": (bias, "")})
    return LayerCall(f"conv{rank}d", x, settings, weights).match(t)


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
def _max_pool(t: Translation, v: Value) -> Match | None:
    settings = _window(v)
    return (
        None
        if settings is None
        else LayerCall("max_pool_first", v.inputs[0], settings, {}).match(t)
    )


@rule("div", "mul")
def _average_pool(t: Translation, v: Value) -> Match | None:
    total, count = v.inputs if v.inputs[0].op == "reduce_window_sum" else v.inputs[::-1]
    if total.op != "reduce_window_sum" or not t.alone(total):
        return None
    settings = _window(total)
    if settings is None or (v.op == "div" and total is not v.inputs[0]):
        return None
    entries = math.prod(total.params["window_dimensions"])
    if not count.is_number(entries if v.op == "div" else 1 / entries):
        return None
    return LayerCall("avg_pool", total.inputs[0], settings, {}).match(t)


@rule("gather")
def _gather(t: Translation, v: Value) -> Match | None:
    table, indices = v.inputs
    p = v.params["dimension_numbers"]
    axes = list(p.start_index_map)
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
        found = LayerCall("embedding", index, settings, {"table": (table, "")}).match(t)
        if found is not None:
            return found
    if not index.shape and (number := index.uniform()) is not None:
        length = table.shape[axis]
        return node("select", table, axis=axis, index=int(number) % length, length=length)
    return node("take", table, index, axis=axis)


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


# Products, and attention.


@rule("dot_general", "transpose")
def _product(t: Translation, v: Value) -> Match | None:
    c = contraction(t, v)
    if c is None:
        return None
    return _dense(t, v, None) or _attention(t, c) or _matmul(c)


def _order(c: Contraction) -> tuple[Contraction, list[int], list[int], list[int], list[int]]:
    """Return a product whose left axes come first, and its labels: common, left, right, summed."""
    both = [n for n in c.labels if n in c.left_labels and n in c.right_labels]
    left = [n for n in c.labels if n not in c.right_labels]
    right = [n for n in c.labels if n not in c.left_labels]
    summed = [n for n in c.left_labels if n in c.right_labels and n not in c.labels]
    if left and right and c.labels.index(left[0]) > c.labels.index(right[0]):
        c, left, right = c.swapped(), right, left
    return c, both, left, right, summed


def _matmul(c: Contraction) -> Match:
    c, both, left, right, summed = _order(c)
    lengths = dict(zip(c.left_labels, c.left.shape, strict=True))
    lengths |= dict(zip(c.right_labels, c.right.shape, strict=True))
    size = lambda labels: math.prod(lengths[n] for n in labels)  # noqa: E731
    batch = [lengths[n] for n in both]

    def emit(g: GraphBuilder, operands: list[Operand], about: dict[str, Any]) -> Operand:
        plain = {**about, "values": None}
        one = _axes_in_order(g, operands[0], c.left_labels, [*both, *left, *summed], plain)
        other = _axes_in_order(g, operands[1], c.right_labels, [*both, *summed, *right], plain)
        # Without common axes, a matrix product keeps all axes of its left operand.
        rows = [size(left)] if both else [lengths[n] for n in left]
        first = reshape(g, one, [*batch, *rows, size(summed)], plain)
        second = reshape(g, other, [*batch, size(summed), size(right)], plain)
        shape = [*batch, *rows, size(right)]
        made: Operand = g.add("@", [first, second], {}, **{**about, "shape": shape})
        made = reshape(g, made, [lengths[n] for n in (*both, *left, *right)], plain)
        return _axes_in_order(g, made, [*both, *left, *right], c.labels, plain)

    return Match((c.left, c.right), emit)


def _axes_in_order(
    g: GraphBuilder, operand: Operand, labels: Sequence[int], wanted: Sequence[int], about: Any
) -> Operand:
    return permute(g, operand, [list(labels).index(n) for n in wanted], about)


def _attention(t: Translation, c: Contraction) -> Match | None:
    """Return attention: a softmax of scores, times values."""
    chosen, both, left, right, summed = _order(c)
    if patterns.softmax(chosen.left) is None:
        chosen = chosen.swapped()
        left, right = right, left
    found = patterns.softmax(chosen.left)
    if found is None or not t.alone(chosen.left) or not both:
        return None
    order = [*both, *left, *summed]
    if list(chosen.left_labels) != order or len(left) != 1 or len(right) != 1 or len(summed) != 1:
        return None
    scores, axis = found
    scores, mask = _masked(scores)
    product, scale = _scaled(scores)
    inner = contraction(t, product) if axis == len(order) - 1 else None
    if inner is None or product.shape != chosen.left.shape:
        return None
    # The labels of the scores are those of the softmax.
    query, key = inner.left, inner.right
    labels = dict(zip(inner.labels, order, strict=True))
    width = [n for n in inner.left_labels if n not in inner.labels]
    if len(width) != 1:
        return None
    head = query.shape[inner.left_labels.index(width[0])]
    labels[width[0]] = -1
    one = [labels[n] for n in inner.left_labels]
    other = [labels[n] for n in inner.right_labels]
    if left[0] not in one:
        query, key, one, other = key, query, other, one
    query, factor = _scaled(query)
    key, more = _scaled(key)
    attributes = {
        "scale": scale * factor * more,
        "causal": False,
        "keep": 1.0,
        "width": head,
    }
    value, labels_of_value = chosen.right, chosen.right_labels

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        q = _axes_in_order(g, o[0], one, [*both, left[0], -1], about)
        k = _axes_in_order(g, o[1], other, [*both, summed[0], -1], about)
        v = _axes_in_order(g, o[2], labels_of_value, [*both, summed[0], right[0]], about)
        shape = (*g.shape_of(q)[:-1], g.shape_of(v)[-1])
        made = g.add("attention", [q, k, v, *o[3:]], attributes, **{**about, "shape": shape})
        return _axes_in_order(g, made, [*both, left[0], right[0]], c.labels, about)

    return Match((query, key, value, *([] if mask is None else [mask])), emit)


def _masked(scores: Value) -> tuple[Value, Value | None]:
    """Return scores before a mask, and the mask: true where a score counts, or a float to add."""
    if scores.op == "select_n" and len(scores.inputs) == 3:
        mask, no, yes = scores.inputs
        lowest = no.uniform()
        if lowest is not None and lowest <= LOWEST:
            return yes, mask.inputs[0] if mask.op == "broadcast" else mask
    return scores, None


def _scaled(value: Value) -> tuple[Value, float]:
    """Return a value without a constant factor, and the factor."""
    if value.op in ("mul", "div"):
        for one, other in (value.inputs, value.inputs[::-1]):
            number = other.uniform()
            if number and one.number is None and (value.op == "mul" or one is value.inputs[0]):
                return one, float(number if value.op == "mul" else 1 / number)
    return value, 1.0


# Functions of numbers.


@rule("div", "sub", "add")
def _softmax(t: Translation, v: Value) -> Match | None:
    for name in ("softmax", "log_softmax", "logsumexp"):
        found = getattr(patterns, name)(v)
        if found is not None and name == "logsumexp":
            return _logsumexp(v, *found)
        if found is not None:
            return node(name, found[0], axis=found[1])
    return None


def _logsumexp(v: Value, x: Value, axis: int) -> Match:
    shape = tuple(n for a, n in enumerate(x.shape) if a != axis)

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        made = g.add("logsumexp", o, {"axis": axis}, **{**about, "shape": shape})
        return reshape(g, made, v.shape, about)

    return Match((x,), emit)


@rule("div", "mul")
def _mean(t: Translation, v: Value) -> Match | None:
    found = patterns.mean_of(v)
    if found is None:
        return None
    x, axes = found
    kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
    if list(v.shape) not in (kept, [n for a, n in enumerate(x.shape) if a not in axes]):
        return None
    return node("mean", x, axis=axes, keepdims=len(v.shape) == len(x.shape))


@rule("convert_element_type")
def _cast(t: Translation, v: Value) -> Match | None:
    source = v.inputs[0]
    if source.op == "eq" and v.kind == "float" and (match := _one_hot(source)) is not None:
        return match
    if v.kind == "index" and v.number is None:
        return None
    return node("cast", source)


def _one_hot(equal: Value) -> Match | None:
    for one, other in (equal.inputs, equal.inputs[::-1]):
        steps, index = patterns.stripped(other).number, one.inputs[0] if one.inputs else one
        length = equal.shape[-1]
        if steps is None or steps.shape[-1:] != (length,) or steps.size != length:
            continue
        new = one.op == "reshape" and one.shape == (*index.shape, 1)
        if new and index.kind == "index" and (steps.ravel() == np.arange(length)).all():
            return node("one_hot", index, length)
    return None


@rule("*")
def _function(t: Translation, v: Value) -> Match | None:
    if v.op == "max" and v.function == "relu":
        return node("relu", *(i for i in v.inputs if i.uniform() is None))
    found = patterns.known_function(v, FUNCTIONS)
    return None if found is None else node(found[0], found[1])


def elementwise(op: str, v: Value, inputs: Sequence[Value]) -> Match:
    """Return an elementwise operator, without the broadcasts that it does by itself."""
    numbers = [i.uniform() for i in inputs]
    needs: list[Needed] = [
        peeled(i) if n is None else n for i, n in zip(inputs, numbers, strict=True)
    ]
    shapes = [n.shape for n in needs if isinstance(n, Value)]
    if np.broadcast_shapes(*shapes) != v.shape:
        place = next((k for k, n in enumerate(needs) if isinstance(n, Value)), 0)
        needs[place] = inputs[place]
    return node(op, *needs)


@rule(*UNARY)
def _unary(t: Translation, v: Value) -> Match | None:
    return node(UNARY[v.op], v.inputs[0])


@rule(*BINARY)
def _binary(t: Translation, v: Value) -> Match | None:
    return elementwise(BINARY[v.op], v, v.inputs)


@rule("integer_pow", "square", "rsqrt", "log1p", "expm1", "erfc")
def _power(t: Translation, v: Value) -> Match | None:
    x = v.inputs[0]
    if v.op in ("integer_pow", "square"):
        return node("**", x, 2 if v.op == "square" else int(v.params["y"]))
    plain = lambda about: {**about, "values": None}  # noqa: E731
    if v.op == "rsqrt":
        return Match(
            (x,), lambda g, o, a: g.add("/", [1, g.add("sqrt", o, {}, **plain(a))], {}, **a)
        )
    if v.op == "log1p":
        return Match(
            (x,), lambda g, o, a: g.add("log", [g.add("+", [1, *o], {}, **plain(a))], {}, **a)
        )
    name, sign = {"expm1": ("exp", 1), "erfc": ("erf", -1)}[v.op]
    if sign < 0:
        return Match((x,), lambda g, o, a: g.add("-", [1, g.add(name, o, {}, **plain(a))], {}, **a))
    return Match((x,), lambda g, o, a: g.add("-", [g.add(name, o, {}, **plain(a)), 1], {}, **a))


@rule("select_n")
def _where(t: Translation, v: Value) -> Match | None:
    if len(v.inputs) != 3 or v.inputs[0].kind != "boolean":
        return None
    condition, no, yes = v.inputs
    return elementwise("where", v, (condition, yes, no))


@rule("clamp")
def _clamp(t: Translation, v: Value) -> Match | None:
    low, x, high = v.inputs
    bottom, top = low.uniform(), high.uniform()
    if bottom is None or top is None:
        return None

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        above = g.add("maximum", [o[0], bottom], {}, **{**about, "values": None})
        return g.add("minimum", [above, top], {}, **about)

    return Match((x,), emit)


@rule(*REDUCTIONS)
def _reduce(t: Translation, v: Value) -> Match | None:
    axes = sorted(int(a) for a in v.params["axes"])
    return node(REDUCTIONS[v.op], v.inputs[0], axis=axes, keepdims=False)


@rule("reduce_min")
def _least(t: Translation, v: Value) -> Match | None:
    attributes = {"axis": sorted(int(a) for a in v.params["axes"]), "keepdims": False}

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        plain = {**about, "values": None}
        whole = g.add("negative", o, {}, **{**plain, "shape": v.inputs[0].shape})
        return g.add("negative", [g.add("max", [whole], attributes, **plain)], {}, **about)

    return Match(v.inputs, emit)


@rule("argmax")
def _argmax(t: Translation, v: Value) -> Match | None:
    return node("argmax", v.inputs[0], axis=int(v.params["axes"][0]))


@rule("cumsum")
def _cumsum(t: Translation, v: Value) -> Match | None:
    return None if v.params["reverse"] else node("cumsum", v.inputs[0], axis=v.params["axis"])


# Shapes.


@rule("transpose")
def _transpose(t: Translation, v: Value) -> Match | None:
    return node("permute", v.inputs[0], axes=[int(a) for a in v.params["permutation"]])


@rule("reshape")
def _reshape(t: Translation, v: Value) -> Match | None:
    source = v.inputs[0]
    if source.op == "slice" and (match := _select(v, source)) is not None:
        return match
    return node("reshape", source)


def _select(v: Value, cut: Value) -> Match | None:
    """Return one entry along an axis, if a value is a slice of length 1 without this axis."""
    source = cut.inputs[0]
    axes = [a for a, (n, m) in enumerate(zip(cut.shape, source.shape, strict=True)) if n != m]
    if len(axes) != 1 or cut.shape[axes[0]] != 1:
        return None
    axis = axes[0]
    if v.shape != (*source.shape[:axis], *source.shape[axis + 1 :]):
        return None
    start = int(cut.params["start_indices"][axis])
    return node("select", source, axis=axis, index=start, length=source.shape[axis])


@rule("broadcast")
def _broadcast(t: Translation, v: Value) -> Match | None:
    return node("broadcast", v.inputs[0])


@rule("slice")
def _slice(t: Translation, v: Value) -> Match | None:
    source = v.inputs[0]
    starts, stops = v.params["start_indices"], v.params["limit_indices"]
    steps = v.params["strides"] or (1,) * len(starts)
    bounds = list(zip(starts, stops, steps, strict=True))
    return _cuts(source, [(int(a), int(b), int(c)) for a, b, c in bounds])


def _cuts(source: Value, bounds: Sequence[tuple[int, int, int]]) -> Match | None:
    """Return slices along axes. The language has steps only if they divide the slice; other steps
    must divide the whole axis."""
    odd = {a for a, (start, stop, step) in enumerate(bounds) if (stop - start) % step}
    for axis in odd:
        start, stop, step = bounds[axis]
        if source.shape[axis] % step or start >= step or stop <= source.shape[axis] - step + start:
            return None

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        made, shape = o[0], list(source.shape)
        for axis, (start, stop, step) in enumerate(bounds):
            if (start, stop, step) != (0, shape[axis], 1):
                made = _cut(g, made, axis, (start, stop, step), axis in odd, about)
        return made

    return Match((source,), emit)


def _cut(
    g: GraphBuilder,
    operand: Operand,
    axis: int,
    bounds: tuple[int, int, int],
    is_odd: bool,
    about: Mapping[str, Any],
) -> Operand:
    """Add a slice along an axis. If ``is_odd``, the axis is split into groups of ``step`` entries,
    and one entry of each group is selected."""
    start, stop, step = bounds
    shape = list(g.shape_of(operand))
    length = shape[axis]
    shape[axis] = -(-(stop - start) // step)
    numbers = about["values"] if tuple(shape) == about["shape"] else None
    more = {**about, "shape": tuple(shape), "values": numbers}
    if is_odd:
        groups = [*shape[: axis + 1], step, *shape[axis + 1 :]]
        operand = reshape(g, operand, groups, about)
        attributes = {"axis": axis + 1, "index": start, "length": step}
        return g.add("select", [operand], attributes, **more)
    attributes = {"axis": axis, "start": start, "stop": stop, "step": step, "length": length}
    return g.add("slice", [operand], attributes, **more)


@rule("split")
def _split(t: Translation, v: Value) -> Match | None:
    source, axis = v.inputs[0], int(v.params["axis"])
    sizes = [int(n) for n in v.params["sizes"]]
    start = sum(sizes[: v.result])
    bounds = [(0, n, 1) for n in source.shape]
    bounds[axis] = (start, start + sizes[v.result], 1)
    return _cuts(source, bounds)


@rule("rev")
def _reverse(t: Translation, v: Value) -> Match | None:
    axes = [int(a) for a in v.params["dimensions"]]
    if len(axes) != 1 or len(v.shape) < 2:
        return None
    order = list(range(len(v.shape)))
    order[1], order[axes[0]] = order[axes[0]], order[1]

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        source = permute(g, o[0], order, about)
        shape = tuple(v.shape[a] for a in order)
        made = g.add("reverse", [source], {}, **{**about, "shape": shape, "values": None})
        return permute(g, made, order, about)

    return Match(v.inputs, emit)


@rule("concatenate")
def _concat(t: Translation, v: Value) -> Match | None:
    return node("concat", *v.inputs, axis=int(v.params["dimension"]))


@rule("stack")
def _stack(t: Translation, v: Value) -> Match | None:
    axis = int(v.params["axis"])
    one = tuple(1 if a == axis else n for a, n in enumerate(v.shape))

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        parts = [reshape(g, part, one, about) for part in o]
        return g.add("concat", parts, {"axis": axis}, **about)

    return Match(v.inputs, emit)
