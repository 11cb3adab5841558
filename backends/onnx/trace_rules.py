"""The rules that translate ONNX operators into the neutral graph, by operator type.

A rule gets the translation, the node, and shape, kind, modules and place of its first result. It
returns the operand of the first result, a list of operands, or None for a form of the operator that
has no translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.extend.models import Operand, Rules

About = Mapping[str, Any]
Result = Operand | list[Operand] | None
# The translation is a `trace.OnnxTranslation`, which imports this module.
Rule = Callable[[Any, Any, About], Result]
RULES: Rules[Rule] = Rules()

UNARY = {
    **{n: n.lower() for n in ("Exp", "Log", "Tanh", "Sqrt", "Erf", "Sin", "Cos", "Floor", "Relu")},
    **{n: n.lower() for n in ("Sigmoid", "Softplus", "Abs", "Sign")},
    "Neg": "negative",
    "Not": "~",
    "Softsign": "softsign",
    "Mish": "mish",
    "HardSwish": "hard_swish",
}
BINARY = {
    "Sub": "-",
    "Div": "/",
    "Pow": "**",
    "Less": "<",
    "LessOrEqual": "<=",
    "Greater": ">",
    "GreaterOrEqual": ">=",
    "Equal": "==",
    "And": "&",
    "Or": "|",
}
# Operators of any number of operands.
CHAINS = {"Add": "+", "Sum": "+", "Mul": "*", "Mean": "+", "Max": "maximum", "Min": "minimum"}
REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "max",
    "ReduceSumSquare": "sum",
    "ReduceL1": "sum",
    "ReduceL2": "sum",
}
# Selu's constants.
ALPHA, GAMMA = 1.6732632423543772, 1.0507009873554805


def is_float(t: Any, name: str) -> bool:
    """Return whether a value holds floats."""
    return bool(t.values[name].dtype.kind == "f")


@RULES.of("Identity", "Dropout")
def _unchanged(t: Any, node: Any, about: About) -> Result:
    name = node.input[0]
    if name in t.views:
        t.views[node.output[0]] = t.views[name]
    return t.get(name)


@RULES.of(*UNARY)
def _unary(t: Any, node: Any, about: About) -> Result:
    return t.builder.node(UNARY[node.op_type], [t.get(node.input[0])], about)


@RULES.of(*BINARY)
def _binary(t: Any, node: Any, about: About) -> Result:
    if node.op_type == "Div" and not is_float(t, node.input[0]):
        return None
    return t.builder.node(BINARY[node.op_type], [t.get(n) for n in node.input], about)


@RULES.of(*CHAINS)
def _chain(t: Any, node: Any, about: About) -> Result:
    op = CHAINS[node.op_type]
    value, shape = t.get(node.input[0]), t.shape(node.input[0])
    for name in node.input[1:]:
        shape = np.broadcast_shapes(shape, t.shape(name))
        value = t.builder.node(op, [value, t.get(name)], about, shape)
    return t.builder.node("/", [value, len(node.input)], about) if node.op_type == "Mean" else value


@RULES.of("Reciprocal", "Ceil", "Selu", "ThresholdedRelu")
def _composed(t: Any, node: Any, about: About) -> Result:
    x, a = t.get(node.input[0]), t.attributes(node)
    make = lambda op, *inputs, **settings: t.builder.node(op, inputs, about, **settings)  # noqa: E731
    match node.op_type:
        case "Reciprocal":
            return make("/", 1, x)
        case "Ceil":
            return make("negative", make("floor", make("negative", x)))
        case "Selu":
            alpha, gamma = plain(a.get("alpha", ALPHA)), plain(a.get("gamma", GAMMA))
            return make("*", gamma, make("elu", x, alpha=alpha))
    above = make(">", x, plain(a.get("alpha", 1.0)), kind="boolean")
    return make("where", above, x, make("*", 0, x))


def plain(number: float) -> float:
    """Return a float32 number of an ONNX file with the fewest digits: 0.2, not 0.20000000298."""
    return float(str(np.float32(number)))


@RULES.of("LeakyRelu", "Elu", "Celu", "PRelu", "HardSigmoid", "Clip", "Gelu")
def _activation(t: Any, node: Any, about: About) -> Result:
    x, a = t.get(node.input[0]), t.attributes(node)
    match node.op_type:
        case "LeakyRelu":
            return t.builder.node("leaky_relu", [x], about, slope=plain(a.get("alpha", 0.01)))
        case "Elu":
            return t.builder.node("elu", [x], about, alpha=plain(a.get("alpha", 1.0)))
        case "Celu":
            alpha = plain(a.get("alpha", 1.0))
            scaled = x if alpha == 1 else t.builder.node("/", [x, alpha], about)
            result = t.builder.node("elu", [scaled], about, alpha=1.0)
            return result if alpha == 1 else t.builder.node("*", [alpha, result], about)
        case "Gelu":
            return t.builder.node(
                "gelu_tanh" if a.get("approximate") == "tanh" else "gelu", [x], about
            )
        case "PRelu":
            below = t.builder.node("relu", [t.builder.node("negative", [x], about)], about)
            scaled = t.builder.node("*", [t.get(node.input[1]), below], about)
            return t.builder.node("-", [t.builder.node("relu", [x], about), scaled], about)
        case "HardSigmoid":
            slope, start = plain(a.get("alpha", 0.2)), plain(a.get("beta", 0.5))
            if start == 0.5 and math.isclose(slope, 1 / 6, rel_tol=1e-6):
                return t.builder.node("hard_sigmoid_sixth", [x], about)
            if start == 0.5 and slope == 0.2:
                return t.builder.node("hard_sigmoid_fifth", [x], about)
            line = t.builder.node("+", [t.builder.node("*", [slope, x], about), start], about)
            return t.builder.node(
                "minimum", [t.builder.node("maximum", [line, 0.0], about), 1.0], about
            )
    return _clip(t, node, x, a, about)


def _clip(t: Any, node: Any, x: Operand, a: Mapping[str, Any], about: About) -> Result:
    limits = {"maximum": a.get("min"), "minimum": a.get("max")}
    for place, name in enumerate(node.input[1:]):
        if name:
            limits["maximum" if place == 0 else "minimum"] = t.get(name)
    for op, limit in limits.items():
        if limit is not None and not (isinstance(limit, float) and abs(limit) > 3e38):
            limit = plain(limit) if isinstance(limit, float) else limit
            x = t.builder.node(op, [x, limit], about)
    return x


@RULES.of("Softmax", "LogSoftmax")
def _softmax(t: Any, node: Any, about: About) -> Result:
    rank = len(about["shape"])
    axis = t.attributes(node).get("axis", 1 if t.opset < 13 else -1) % rank
    op = "softmax" if node.op_type == "Softmax" else "log_softmax"
    before = about["shape"][axis:]
    if t.opset >= 13 or axis == rank - 1 or math.prod(before[1:]) == 1:
        return t.builder.node(op, [t.get(node.input[0])], about, axis=axis)
    # Before opset 13, all axes from this axis on are one distribution.
    flat = (*about["shape"][:axis], math.prod(before))
    value = t.builder.node("reshape", [t.get(node.input[0])], about, flat)
    return t.builder.node("reshape", [t.builder.node(op, [value], about, flat, axis=axis)], about)


def axes_of(t: Any, node: Any, rank: int) -> list[int] | None:
    """Return the axes of a reduction: the attribute ``axes``, or the second input."""
    a = t.attributes(node)
    axes = a.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = t.number(node.input[1])
        if axes is None:
            return None
    axes = [] if axes is None else [int(n) for n in axes]
    if not axes and a.get("noop_with_empty_axes"):
        return []
    return sorted(n % rank for n in axes) or list(range(rank))


@RULES.of(*REDUCTIONS)
def _reduce(t: Any, node: Any, about: About) -> Result:
    name, kind = node.input[0], node.op_type
    x, shape = t.get(name), t.shape(name)
    axes = axes_of(t, node, len(shape))
    if axes is None or not is_float(t, name):
        return None
    if not axes:
        return x
    if kind == "ReduceMin":
        x = t.builder.node("negative", [x], about, shape)
    elif kind in ("ReduceSumSquare", "ReduceL2"):
        x = t.builder.node("*", [x, x], about, shape)
    elif kind == "ReduceL1":
        x = t.builder.node("abs", [x], about, shape)
    keep = bool(t.attributes(node).get("keepdims", 1))
    result = t.builder.node(REDUCTIONS[kind], [x], about, axis=axes, keepdims=keep)
    last = {"ReduceMin": "negative", "ReduceL2": "sqrt"}.get(kind)
    return result if last is None else t.builder.node(last, [result], about)


@RULES.of("ReduceLogSumExp", "ArgMax")
def _along(t: Any, node: Any, about: About) -> Result:
    a, shape = t.attributes(node), t.shape(node.input[0])
    if node.op_type == "ArgMax":
        axes = [a.get("axis", 0) % len(shape)]
        if a.get("select_last_index"):
            return None
    else:
        axes = axes_of(t, node, len(shape)) or []
    if len(axes) != 1:
        return None
    short = [n for axis, n in enumerate(shape) if axis != axes[0]]
    op = "argmax" if node.op_type == "ArgMax" else "logsumexp"
    result = t.builder.node(op, [t.get(node.input[0])], about, short, axis=axes[0])
    return t.builder.node("reshape", [result], about) if a.get("keepdims", 1) else result


@RULES.of("CumSum")
def _cumsum(t: Any, node: Any, about: About) -> Result:
    axis, a = t.number(node.input[1]), t.attributes(node)
    if axis is None or a.get("exclusive") or a.get("reverse"):
        return None
    axis = int(axis.ravel()[0]) % len(about["shape"])
    return t.builder.node("cumsum", [t.get(node.input[0])], about, axis=axis)


@RULES.of("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(t: Any, node: Any, about: About) -> Result:
    name = node.input[0]
    if name in t.views and not t.views[name][1]:
        # A rule of --map may split and join neighbouring axes of a weight by itself.
        t.views[node.output[0]] = t.views[name]
    return t.builder.node("reshape", [t.get(name)], about)


@RULES.of("Transpose")
def _transpose(t: Any, node: Any, about: About) -> Result:
    name, rank = node.input[0], len(about["shape"])
    axes = [int(n) for n in t.attributes(node).get("perm", range(rank)[::-1])]
    if name in t.views and t.shape(name) == t.shape(t.views[name][0]) and not t.views[name][1]:
        turn = ".T" if axes == [1, 0] else f".transpose({', '.join(map(str, axes))})"
        t.views[node.output[0]] = (t.views[name][0], turn)
    return t.builder.node("permute", [t.get(name)], about, axes=axes)


@RULES.of("Expand", "Tile")
def _expand(t: Any, node: Any, about: About) -> Result:
    old, new = t.shape(node.input[0]), about["shape"]
    padded = (1,) * (len(new) - len(old)) + tuple(old)
    if any(n not in (1, m) for n, m in zip(padded, new, strict=True)):
        return None
    return t.builder.node("broadcast", [t.get(node.input[0])], about)


@RULES.of("Concat")
def _concat(t: Any, node: Any, about: About) -> Result:
    axis = t.attributes(node)["axis"] % len(about["shape"])
    parts = [t.get(n) for n in node.input if t.shape(n)[axis]]
    return parts[0] if len(parts) == 1 else t.builder.node("concat", parts, about, axis=axis)


@RULES.of("Slice")
def _slice(t: Any, node: Any, about: About) -> Result:
    a, shape = t.attributes(node), t.shape(node.input[0])
    if "starts" in a:
        starts, ends, axes, steps = a["starts"], a["ends"], a.get("axes"), None
    else:
        numbers = [t.number(n) if n else None for n in [*node.input[1:], "", ""][:4]]
        if any(n and t.number(n) is None for n in node.input[1:]):
            return None
        starts, ends, axes, steps = (None if n is None else n.tolist() for n in numbers)
    axes = list(range(len(starts))) if axes is None else [n % len(shape) for n in axes]
    value = t.get(node.input[0])
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        if step < 1:
            return None
        bounds = slice(start, end, step).indices(shape[axis])
        value = t.builder.cut(value, axis, (bounds[0], max(bounds[:2]), step), about)
    return value


@RULES.of("Split")
def _split(t: Any, node: Any, about: About) -> Result:
    shape = t.shape(node.input[0])
    axis = t.attributes(node).get("axis", 0) % len(shape)
    pieces: list[Operand] = []
    start = 0
    for name in node.output:
        length = t.shape(name)[axis]
        bounds = (start, start + length, 1)
        pieces.append(t.builder.cut(t.get(node.input[0]), axis, bounds, about))
        start += length
    return pieces


@RULES.of("Gather")
def _gather(t: Any, node: Any, about: About) -> Result:
    table, index = node.input
    shape = t.shape(table)
    axis = t.attributes(node).get("axis", 0) % len(shape)
    number = t.number(index)
    if number is not None and number.ndim == 0:
        return t.builder.select(t.get(table), axis, int(number), about)
    if number is not None and number.ndim == 1 and len(number):
        indices = [int(n) % shape[axis] for n in number]
        if indices == list(range(indices[0], indices[0] + len(indices))):
            bounds = (indices[0], indices[0] + len(indices), 1)
            return t.builder.cut(t.get(table), axis, bounds, about)
    if axis == 0 and len(shape) == 2 and table in t.views and not t.views[table][1]:
        settings = {"rows": shape[0], "units": shape[1]}
        return t.layer("embedding", [t.get(index)], settings, {"table": (table, "")}, about)
    return t.builder.node("take", [t.get(table), t.get(index)], about, axis=axis)


@RULES.of("Where")
def _where(t: Any, node: Any, about: About) -> Result:
    return t.builder.node("where", [t.get(n) for n in node.input], about)


@RULES.of("Cast")
def _cast(t: Any, node: Any, about: About) -> Result:
    before, after = t.values[node.input[0]].dtype, t.values[node.output[0]].dtype
    groups = {"f": "f", "b": "b"}
    if groups.get(before.kind, "i") == groups.get(after.kind, "i"):
        return t.get(node.input[0])
    if after.kind not in "fb":
        return None
    return t.builder.node("cast", [t.get(node.input[0])], about)


@RULES.of("OneHot")
def _one_hot(t: Any, node: Any, about: About) -> Result:
    depth, values = t.number(node.input[1]), t.arrays.get(node.input[2])
    rank = len(about["shape"])
    axis = t.attributes(node).get("axis", -1) % rank
    if depth is None or values is None or list(values) != [0, 1]:
        return None
    classes = int(depth.ravel()[0])
    short = (*t.shape(node.input[0]), classes)
    value = t.builder.node("one_hot", [t.get(node.input[0]), classes], about, short)
    if axis == rank - 1:
        return value
    axes = list(range(rank - 1))
    axes.insert(axis, rank - 1)
    return t.builder.node("permute", [value], about, axes=axes)
