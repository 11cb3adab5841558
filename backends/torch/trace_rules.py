"""Rules that translate torch's operators (``aten``) to those of the neutral graph.

A rule gets the operator's arguments by the names in its schema. :mod:`.trace` calls the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from harness.extend.models import GraphBuilder, Operand, Rules

ELEMENTWISE = {
    **{name: name for name in ("exp", "log", "tanh", "sqrt", "erf", "sin", "cos", "floor")},
    **{name: name for name in ("relu", "sigmoid", "silu", "abs", "sign")},
    "hardsigmoid": "hard_sigmoid_sixth",
    "hardswish": "hard_swish",
    "relu6": "relu6",
    "mish": "mish",
    "softsign": "softsign",
    "bitwise_not": "~",
    "logical_not": "~",
    "neg": "negative",
    "__invert__": "~",
}
BINARY = {
    "mul": "*",
    "div": "/",
    "true_divide": "/",
    "matmul": "@",
    "bmm": "@",
    "mm": "@",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "logical_and": "&",
    "logical_or": "|",
    "__and__": "&",
    "__or__": "|",
    "maximum": "maximum",
    "minimum": "minimum",
}
LOWEST = -1.0e30
# torch's end of a slice without an end is the largest integer.
ENDLESS = 1 << 62
# These operators return their first argument: they change memory or dtype, or only check it.
UNCHANGED = frozenset(
    [
        "alias",
        "contiguous",
        "clone",
        "lift_fresh_copy",
        "lift_fresh",
    ]
)
RESHAPES = frozenset(
    [
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
        "unsqueeze",
        "squeeze",
        "unflatten",
        "view_as",
        "reshape_as",
    ]
)
RANDOM = frozenset(
    ["bernoulli", "bernoulli_", "rand", "randn", "rand_like", "randn_like", "normal", "normal_"]
)
CHECKS = frozenset(["_assert_tensor_metadata", "_assert_async", "sym_size"])
# OperatorArguments that change where or how an operator computes, but not what.
MEMORY = frozenset(
    [
        *("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "copy"),
        *("generator", "implicit", "sparse", "half_to_float"),
        *("cudnn_enable", "cudnn_enabled"),
    ]
)


class OperatorArguments(dict[str, Any]):
    """The arguments of an operator by name; it notes the names that a rule reads."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def ignored(self, node: torch.fx.Node) -> str:
        """Return the arguments that no rule has read although they are not the default, e.g.
        ``beta=2``. The result's shape shows required arguments, so a rule need not read these."""
        unread = [
            f"{argument.name}={self[argument.name]}"
            for argument in node.target._schema.arguments
            if argument.has_default_value()
            and argument.name not in self.read | MEMORY
            and self[argument.name] != argument.default_value
        ]
        return f"with {', '.join(unread)}" if unread else ""


class TorchTranslation(Protocol):
    """The parts of the translation that rules use: the graph, the value of each torch node, the
    tensors of nodes that depend on no input, and whether the program is that of the training mode.
    """

    training: bool
    builder: GraphBuilder
    values: dict[torch.fx.Node, Any]
    known: dict[torch.fx.Node, torch.Tensor]


Rule = Callable[[TorchTranslation, torch.fx.Node, OperatorArguments, dict[str, Any]], Any]
# The rule of each operator, by its name without overload.
RULES: Rules[Rule] = Rules()


def _axes(dims: Any, rank: int) -> list[int]:
    listed = list(range(rank)) if dims is None or dims == [] else dims
    listed = [listed] if isinstance(listed, int) else listed
    return sorted(d % rank for d in listed)


def _rank(node: torch.fx.Node, number: int = 0) -> int:
    return len(node.args[number].meta["val"].shape)


def length_of(node: torch.fx.Node, axis: int, number: int = 0) -> int:
    """Return the length of an axis of an argument of a node."""
    return int(node.args[number].meta["val"].shape[axis])


@RULES.of("add", "sub", "rsub")
def _add(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    left, right = a["self"], a["other"]
    if str(node.target).startswith("aten.rsub"):
        left, right = right, left
    if a.get("alpha", 1) != 1:
        right = t.builder.add("*", [right, a["alpha"]], {}, **about)
    sign = "+" if str(node.target).startswith("aten.add") else "-"
    return t.builder.add(sign, [left, right], {}, **about)


@RULES.of("pow")
def _power(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.add("**", [a["self"], a["exponent"]], {}, **about)


@RULES.of("rsqrt", "reciprocal")
def _inverse(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    below = a["self"]
    if "rsqrt" in str(node.target):
        below = t.builder.add("sqrt", [below], {}, **about)
    return t.builder.add("/", [1, below], {}, **about)


@RULES.of("gelu")
def _gelu(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = "gelu_tanh" if a["approximate"] == "tanh" else "gelu"
    return t.builder.add(name, [a["self"]], {}, **about)


@RULES.of("leaky_relu", "elu")
def _slope(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "leaky" in str(node.target):
        return t.builder.add("leaky_relu", [a["self"]], {"slope": a["negative_slope"]}, **about)
    return t.builder.add("elu", [a["self"]], {"alpha": a["alpha"]}, **about)


@RULES.of("softplus")
def _softplus(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    beta, value = a["beta"], a["self"]
    if beta == 1:
        return t.builder.add("softplus", [value], {}, **about)
    scaled = t.builder.add("*", [value, beta], {}, **about)
    return t.builder.add("/", [t.builder.add("softplus", [scaled], {}, **about), beta], {}, **about)


@RULES.of("max", "min")
def _extreme(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "other" not in a:
        return unsupported(t, node, about)
    name = "maximum" if str(node.target).startswith("aten.max") else "minimum"
    return t.builder.add(name, [a["self"], a["other"]], {}, **about)


@RULES.of("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    value = a["self"]
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if low is not None:
        value = t.builder.add("maximum", [value, low], {}, **about)
    if high is not None:
        value = t.builder.add("minimum", [value, high], {}, **about)
    return value


@RULES.of("softmax", "log_softmax", "_softmax", "cumsum", "logsumexp")
def _along(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = str(node.target).removeprefix("aten.").lstrip("_").split(".")[0]
    dims = a["dim"] if isinstance(a["dim"], list) else [a["dim"]]
    if len(dims) != 1:
        return unsupported(t, node, about)
    axis = dims[0] % _rank(node)
    if not a.get("keepdim"):
        return t.builder.add(name, [a["self"]], {"axis": axis}, **about)
    shape = [n for place, n in enumerate(about["shape"]) if place != axis]
    reduced = t.builder.node(name, [a["self"]], about, shape, axis=axis)
    return t.builder.add("reshape", [reduced], {}, **about)


@RULES.of("sum", "mean", "amax", "amin", "var")
def _reduce(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = str(node.target).removeprefix("aten.").split(".")[0]
    axes = _axes(a.get("dim"), _rank(node))
    attributes = {"axis": axes, "keepdims": bool(a.get("keepdim", False))}
    value = a["self"]
    if name == "amin":
        negative = {**about, "shape": tuple(node.args[0].meta["val"].shape)}
        value = t.builder.add("negative", [value], {}, **negative)
        return t.builder.add(
            "negative", [t.builder.add("max", [value], attributes, **about)], {}, **about
        )
    result = t.builder.add({"amax": "max"}.get(name, name), [value], attributes, **about)
    correction = a.get("correction", 1 if a.get("unbiased", True) else 0)
    if name == "var" and (correction is None or correction):
        count = math.prod(length_of(node, axis) for axis in axes)
        result = t.builder.add("*", [result, count / (count - (correction or 1))], {}, **about)
    return result


@RULES.of("argmax")
def _argmax(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.add("argmax", [a["self"]], {"axis": a["dim"] % _rank(node)}, **about)


@RULES.of("transpose", "t", "permute", "movedim", "numpy_T")
def _permute(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    rank = _rank(node)
    axes = list(range(rank))
    if "dims" in a:
        axes = [d % rank for d in a["dims"]]
    else:
        one, other = (a["dim0"] % rank, a["dim1"] % rank) if "dim0" in a else (0, rank - 1)
        axes[one], axes[other] = axes[other], axes[one]
    return t.builder.add("permute", [a["self"]], {"axes": axes}, **about)


@RULES.of("expand", "expand_as", "repeat")
def _expand(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "repeats" in a and any(
        n != 1 and length != 1
        for n, length in zip(
            reversed(a["repeats"]), reversed(node.args[0].meta["val"].shape), strict=False
        )
    ):
        return unsupported(t, node, about)
    return t.builder.add("broadcast", [a["self"]], {}, **about)


def unsupported(
    t: TorchTranslation,
    node: torch.fx.Node,
    about: dict[str, Any],
    reason: str = "",
) -> Operand:
    """Add an operator without a translation; ``reason`` says why it has none."""
    inputs = [t.values[n] for n in node.all_input_nodes if isinstance(t.values[n], str)]
    attributes = {"operator": str(node.target), "reason": reason}
    return t.builder.add("unsupported", inputs, attributes, **about)


@RULES.of("slice")
def _slice(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    axis = a["dim"] % _rank(node)
    length = length_of(node, axis)
    start = min(max((a["start"] or 0) + (length if (a["start"] or 0) < 0 else 0), 0), length)
    end = length if a["end"] is None else a["end"]
    stop = min(max(end + (length if end < 0 else 0), 0), length)
    if length < end < ENDLESS or (a["start"] or 0) < -length:
        remark = (
            f"{about['place']}: a slice ends beyond the traced length {length}; the spec takes "
        )
        t.builder.graph["remarks"].append(f"{remark}the whole axis at every length")
    return t.builder.cut(a["self"], axis, (start, stop, a["step"]), about)


@RULES.of("narrow")
def _narrow(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    axis = a["dim"] % _rank(node)
    bounds = (a["start"], a["start"] + a["length"], 1)
    return t.builder.cut(a["self"], axis, bounds, about)


@RULES.of("select")
def _select(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.select(a["self"], a["dim"] % _rank(node), a["index"], about)


@RULES.of("split", "split_with_sizes", "chunk", "unbind")
def _pieces(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> list[Operand]:
    axis = a["dim"] % _rank(node)
    pieces: list[Operand] = []
    start = 0
    for number, piece in enumerate(node.meta["val"]):
        if "unbind" in str(node.target):
            pieces.append(t.builder.select(a["self"], axis, number, about))
            continue
        stop = start + int(piece.shape[axis])
        pieces.append(t.builder.cut(a["self"], axis, (start, stop, 1), about))
        start = stop
    return pieces


@RULES.of("cat", "concat", "stack")
def _concat(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    rank = len(about["shape"])
    axis = a["dim"] % rank
    parts = list(a["tensors"])
    if "stack" in str(node.target):
        one = {**about, "shape": tuple(1 if n == axis else d for n, d in enumerate(about["shape"]))}
        parts = [t.builder.add("reshape", [part], {}, **one) for part in parts]
    return t.builder.add("concat", parts, {"axis": axis}, **about)


@RULES.of("where")
def _where(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    inputs = [a["condition"], _finite(a["self"]), _finite(a["other"])]
    return t.builder.add("where", inputs, {}, **about)


def _finite(value: Operand) -> Operand:
    """Return the lowest score of the shipped attention layers for minus infinity."""
    return LOWEST if value == -math.inf else value


@RULES.of("masked_fill")
def _fill(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    return t.builder.add("where", [a["mask"], _finite(a["value"]), a["self"]], {}, **about)


@RULES.of("to", "type_as", "float", "double", "_to_copy")
def _cast(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    source = node.args[0].meta["val"]
    same = source.dtype.is_floating_point == node.meta["val"].dtype.is_floating_point
    if same and (source.dtype == torch.bool) == (node.meta["val"].dtype == torch.bool):
        return a["self"]
    return t.builder.add("cast", [a["self"]], {}, **about)


@RULES.of("index_select", "index")
def _index(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "dim" in a:
        return t.builder.add("take", [a["self"], a["index"]], {"axis": a["dim"]}, **about)
    used = [(n, i) for n, i in enumerate(a["indices"]) if i is not None]
    if len(used) == 1:
        return t.builder.add("take", [a["self"], used[0][1]], {"axis": used[0][0]}, **about)
    if node in t.known:
        return t.builder.add("constant", [], {}, **about)
    indices = [i for _, i in used]
    return t.builder.add("gather", [a["self"], *indices], {"axes": [n for n, _ in used]}, **about)


@RULES.of(
    *(
        "arange",
        "zeros",
        "ones",
        "full",
        "new_ones",
        "new_zeros",
        "zeros_like",
        "ones_like",
        "tril",
    ),
    *("full_like", "scalar_tensor", "triu", "linspace", "empty", "new_full", "diff", "eye"),
)
def _constant(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if node not in t.known:
        return unsupported(t, node, about)
    return t.builder.add("constant", [], {}, **about)
