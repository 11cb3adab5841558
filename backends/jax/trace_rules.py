"""Rules that translate functions of numbers, reductions and operators that change shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.extend.models import GraphBuilder, Operand

from . import patterns
from .jaxprs import Value
from .patterns import peeled
from .trace import JaxTranslation, Needed, NodePlan, node, reshape, rule

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


# Functions of numbers.


@rule("div", "sub", "add")
def _softmax(t: JaxTranslation, v: Value) -> NodePlan | None:
    for name in ("softmax", "log_softmax", "logsumexp"):
        match = getattr(patterns, name)(v)
        if match is not None and name == "logsumexp":
            return _logsumexp(v, *match)
        if match is not None:
            return node(name, match[0], axis=match[1])
    return None


def _logsumexp(v: Value, x: Value, axis: int) -> NodePlan:
    shape = tuple(n for a, n in enumerate(x.shape) if a != axis)

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        result = g.add("logsumexp", o, {"axis": axis}, **{**about, "shape": shape})
        return reshape(g, result, v.shape, about)

    return NodePlan((x,), emit)


@rule("div", "mul")
def _mean(t: JaxTranslation, v: Value) -> NodePlan | None:
    mean = patterns.mean_of(v)
    if mean is None:
        return None
    x, axes = mean
    kept_shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    if list(v.shape) not in (kept_shape, [n for a, n in enumerate(x.shape) if a not in axes]):
        return None
    return node("mean", x, axis=axes, keepdims=len(v.shape) == len(x.shape))


@rule("convert_element_type")
def _cast(t: JaxTranslation, v: Value) -> NodePlan | None:
    source = v.inputs[0]
    if source.op == "eq" and v.kind == "float" and (match := _one_hot(source)) is not None:
        return match
    if v.kind != "index" or v.number is not None or source.kind != "boolean":
        return node("cast", source)
    # Sums of conditions are floats in a spec.
    return NodePlan((source,), lambda g, o, a: g.node("cast", o, a, kind="float"))


def _one_hot(equal: Value) -> NodePlan | None:
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
def _function(t: JaxTranslation, v: Value) -> NodePlan | None:
    if v.op == "max" and v.function == "relu":
        return node("relu", *(i for i in v.inputs if i.uniform() is None))
    match = patterns.known_function(v)
    return None if match is None else node(match[0], match[1])


def elementwise(op: str, v: Value, inputs: Sequence[Value]) -> NodePlan:
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
def _unary(t: JaxTranslation, v: Value) -> NodePlan | None:
    return node(UNARY[v.op], v.inputs[0])


@rule(*BINARY)
def _binary(t: JaxTranslation, v: Value) -> NodePlan | None:
    # JAX compares conditions with False, and starts a maximum with minus infinity.
    neutral = {"max": -np.inf, "ne": False if v.inputs[0].kind == "boolean" else None}
    others = [i for i in v.inputs if i.uniform() is None or i.uniform() != neutral.get(v.op)]
    if len(others) == 1 and others[0].shape == v.shape:
        return NodePlan((others[0],), lambda g, o, about: o[0])
    return elementwise(BINARY[v.op], v, v.inputs)


@rule("integer_pow", "square", "rsqrt", "log1p", "expm1", "erfc")
def _power(t: JaxTranslation, v: Value) -> NodePlan | None:
    x = v.inputs[0]
    if v.op in ("integer_pow", "square"):
        return node("**", x, 2 if v.op == "square" else int(v.params["y"]))
    plain = lambda about: {**about, "values": None}  # noqa: E731
    if v.op == "rsqrt":
        return NodePlan(
            (x,), lambda g, o, a: g.add("/", [1, g.add("sqrt", o, {}, **plain(a))], {}, **a)
        )
    if v.op == "log1p":
        return NodePlan(
            (x,), lambda g, o, a: g.add("log", [g.add("+", [1, *o], {}, **plain(a))], {}, **a)
        )
    name, sign = {"expm1": ("exp", 1), "erfc": ("erf", -1)}[v.op]
    if sign < 0:
        return NodePlan(
            (x,), lambda g, o, a: g.add("-", [1, g.add(name, o, {}, **plain(a))], {}, **a)
        )
    return NodePlan((x,), lambda g, o, a: g.add("-", [g.add(name, o, {}, **plain(a)), 1], {}, **a))


@rule("is_finite")
def _finite(t: JaxTranslation, v: Value) -> NodePlan | None:
    x = v.inputs[0]

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        zero = g.node("-", [o[0], o[0]], about, kind="float")
        return g.node("==", [zero, 0], about)

    return NodePlan((x,), emit)


@rule("select_n")
def _where(t: JaxTranslation, v: Value) -> NodePlan | None:
    if len(v.inputs) != 3 or v.inputs[0].kind != "boolean":
        return None
    condition, no, yes = v.inputs
    return elementwise("where", v, (condition, yes, no))


@rule("clamp")
def _clamp(t: JaxTranslation, v: Value) -> NodePlan | None:
    low, x, high = v.inputs
    bottom, top = low.uniform(), high.uniform()
    if bottom is None or top is None:
        return None

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        above = g.add("maximum", [o[0], bottom], {}, **{**about, "values": None})
        return g.add("minimum", [above, top], {}, **about)

    return NodePlan((x,), emit)


@rule(*REDUCTIONS)
def _reduce(t: JaxTranslation, v: Value) -> NodePlan | None:
    axes = sorted(int(a) for a in v.params["axes"])
    return node(REDUCTIONS[v.op], v.inputs[0], axis=axes, keepdims=False)


@rule("reduce_min")
def _least(t: JaxTranslation, v: Value) -> NodePlan | None:
    attributes = {"axis": sorted(int(a) for a in v.params["axes"]), "keepdims": False}

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        plain = {**about, "values": None}
        whole = g.add("negative", o, {}, **{**plain, "shape": v.inputs[0].shape})
        return g.add("negative", [g.add("max", [whole], attributes, **plain)], {}, **about)

    return NodePlan(v.inputs, emit)


@rule("argmax")
def _argmax(t: JaxTranslation, v: Value) -> NodePlan | None:
    return node("argmax", v.inputs[0], axis=int(v.params["axes"][0]))


@rule("cumsum")
def _cumsum(t: JaxTranslation, v: Value) -> NodePlan | None:
    return None if v.params["reverse"] else node("cumsum", v.inputs[0], axis=v.params["axis"])


# Shapes.


@rule("transpose")
def _transpose(t: JaxTranslation, v: Value) -> NodePlan | None:
    return node("permute", v.inputs[0], axes=[int(a) for a in v.params["permutation"]])


@rule("reshape")
def _reshape(t: JaxTranslation, v: Value) -> NodePlan | None:
    source = v.inputs[0]
    if source.op == "slice" and (match := _select(v, source)) is not None:
        return match
    return node("reshape", source)


def _select(v: Value, cut: Value) -> NodePlan | None:
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
def _broadcast(t: JaxTranslation, v: Value) -> NodePlan | None:
    return node("broadcast", v.inputs[0])


@rule("slice")
def _slice(t: JaxTranslation, v: Value) -> NodePlan | None:
    source = v.inputs[0]
    starts, stops = v.params["start_indices"], v.params["limit_indices"]
    steps = v.params["strides"] or (1,) * len(starts)
    bounds = list(zip(starts, stops, steps, strict=True))
    return _cuts(source, [(int(a), int(b), int(c)) for a, b, c in bounds])


def _cuts(source: Value, bounds: Sequence[tuple[int, int, int]]) -> NodePlan | None:
    """Return slices along axes. The language has steps only if they divide the slice; other steps
    must divide the whole axis."""
    odd = {a for a, (start, stop, step) in enumerate(bounds) if (stop - start) % step}
    for axis in odd:
        start, stop, step = bounds[axis]
        if source.shape[axis] % step or start >= step or stop <= source.shape[axis] - step + start:
            return None

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        part, shape = o[0], list(source.shape)
        for axis, (start, stop, step) in enumerate(bounds):
            if (start, stop, step) != (0, shape[axis], 1):
                part = _cut(g, part, axis, (start, stop, step), axis in odd, about)
        return part

    return NodePlan((source,), emit)


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
def _split(t: JaxTranslation, v: Value) -> NodePlan | None:
    source, axis = v.inputs[0], int(v.params["axis"])
    sizes = [int(n) for n in v.params["sizes"]]
    start = sum(sizes[: v.result])
    bounds = [(0, n, 1) for n in source.shape]
    bounds[axis] = (start, start + sizes[v.result], 1)
    return _cuts(source, bounds)


@rule("rev")
def _reverse(t: JaxTranslation, v: Value) -> NodePlan | None:
    axes = [int(a) for a in v.params["dimensions"]]

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        reversed_value = o[0]
        for axis in axes:
            reversed_value = g.cut(reversed_value, axis, (v.shape[axis] - 1, -1, -1), about)
        return reversed_value

    return NodePlan(v.inputs, emit)


@rule("pad")
def _pad(t: JaxTranslation, v: Value) -> NodePlan | None:
    x, number, pads = v.inputs[0], v.inputs[1].uniform(), v.params["padding_config"]
    if number is None or any(inside for _, _, inside in pads):
        return None

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        part, plain = o[0], {**about, "values": None}
        for axis, (low, high, _) in enumerate(pads):
            part = g.cut(part, axis, (max(-low, 0), x.shape[axis] - max(-high, 0), 1), plain)
        pairs = {n: [max(a, 0), max(b, 0)] for n, (a, b, _) in enumerate(pads)}
        return g.pad(part, {n: pair for n, pair in pairs.items() if any(pair)}, plain, number)

    return NodePlan((x,), emit)


@rule("sort")
def _sort(t: JaxTranslation, v: Value) -> NodePlan | None:
    """Return sorted entries, or other entries in the order of the first argument."""
    key, own, axis = v.inputs[0], v.inputs[v.result], int(v.params["dimension"])
    if v.params["num_keys"] != 1 or key.kind != "float":
        return None
    if v.result == 0:
        return node("sort", key, axis=axis)
    steps = own.number
    if steps is not None and (np.moveaxis(steps, axis, -1) == np.arange(v.shape[axis])).all():
        return node("argsort", key, axis=axis)

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        order = g.node("argsort", o[:1], about, kind="index", axis=axis)
        return g.node("take_along_axis", [o[1], order], about, axis=axis)

    return NodePlan((key, own), emit)


@rule("top_k")
def _greatest(t: JaxTranslation, v: Value) -> NodePlan | None:
    x, axis = v.inputs[0], len(v.shape) - 1

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        name = "argsort" if v.result else "sort"
        ordered = g.node(name, o, about, x.shape, axis=axis, descending=True)
        return g.cut(ordered, axis, (0, v.shape[-1], 1), about)

    return NodePlan((x,), emit)


@rule("concatenate")
def _concat(t: JaxTranslation, v: Value) -> NodePlan | None:
    return node("concat", *v.inputs, axis=int(v.params["dimension"]))


@rule("stack")
def _stack(t: JaxTranslation, v: Value) -> NodePlan | None:
    axis = int(v.params["axis"])
    one = tuple(1 if a == axis else n for a, n in enumerate(v.shape))

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        parts = [reshape(g, part, one, about) for part in o]
        return g.add("concat", parts, {"axis": axis}, **about)

    return NodePlan(v.inputs, emit)
