"""Rules that translate torch's operators (``aten``) to those of the neutral graph.

A rule gets the operator's arguments by the names in its schema. :mod:`.trace` calls the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from harness.extend.models import EXCLUDED, GraphBuilder, Operand, Rules

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
    "prims.ne": "!=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "logical_and": "&",
    "logical_or": "|",
    "__and__": "&",
    "__or__": "|",
    "maximum": "maximum",
    "minimum": "minimum",
}
# From here on, softplus differs from its input only by rounding.
LINEAR = 20
# These operators return the entries of their first argument.
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
# These operators read only the shape and the dtype of their first argument.
LIKE = frozenset(
    ["ones_like", "zeros_like", "full_like", "empty_like", "new_ones", "new_zeros", "new_full"]
)
CHECKS = frozenset(["_assert_tensor_metadata", "_assert_async", "sym_size"])
# Arguments that change where or how an operator computes, but not what.
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


def axes_of(dims: Any, rank: int) -> list[int]:
    """Return the axes of torch's argument ``dim`` in order; all axes for None or an empty list."""
    listed = list(range(rank)) if dims is None or dims == [] else dims
    listed = [listed] if isinstance(listed, int) else listed
    return sorted(d % rank for d in listed)


def name_of(node: torch.fx.Node) -> str:
    """Return an operator's name without namespace and overload, e.g. ``add_``; an operator of
    another namespace keeps it."""
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") else name.rpartition(".")[0]


def rank_of(node: torch.fx.Node) -> int:
    """Return the number of axes of the first argument of a node."""
    return len(node.args[0].meta["val"].shape)


def length_of(node: torch.fx.Node, axis: int) -> int:
    """Return the length of an axis of the first argument of a node."""
    return int(node.args[0].meta["val"].shape[axis])


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
    if a["input_scale"] != 1:
        return unsupported(t, node, about, f"input_scale={a['input_scale']}")
    result = t.builder.add("elu", [a["self"]], {"alpha": a["alpha"]}, **about)
    return result if a["scale"] == 1 else t.builder.add("*", [result, a["scale"]], {}, **about)


@RULES.of("softplus")
def _softplus(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    beta, value = a["beta"], a["self"]
    scaled = value if beta == 1 else t.builder.add("*", [value, beta], {}, **about)
    result = t.builder.add("softplus", [scaled], {}, **about)
    if beta != 1:
        result = t.builder.add("/", [result, beta], {}, **about)
    if a["threshold"] >= LINEAR:
        return result
    is_linear = t.builder.node(">", [scaled, a["threshold"]], about, kind="boolean")
    return t.builder.add("where", [is_linear, value, result], {}, **about)


@RULES.of("max", "min")
def _extreme(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Any:
    is_max = str(node.target).startswith("aten.max")
    if "other" in a:
        name = "maximum" if is_max else "minimum"
        return t.builder.add(name, [a["self"], a["other"]], {}, **about)
    shape = t.builder.shape_of(a["self"])
    if "dim" not in a:
        own = {"axis": list(range(len(shape))), "keepdims": False}
        return _extremum(t, a["self"], own, is_max, shape, about)[0]
    # The results are the extreme entries and their indices.
    axis = a["dim"] % len(shape)
    about["shape"], about["kind"] = tuple(int(n) for n in node.meta["val"][0].shape), "float"
    own = {"axis": [axis], "keepdims": a["keepdim"]}
    result, greatest = _extremum(t, a["self"], own, is_max, shape, about)
    return [result, _first_greatest(t, greatest, axis, about)]


def _first_greatest(
    t: TorchTranslation, value: Operand, axis: int, about: dict[str, Any]
) -> Operand:
    """Return the index of the greatest entry along an axis, in the shape of ``about``."""
    shape = list(t.builder.shape_of(value))
    shape.pop(axis)
    indices = t.builder.node("argmax", [value], about, shape, "index", axis=axis)
    return t.builder.reshape(indices, {**about, "kind": "index"})


def _extremum(
    t: TorchTranslation,
    value: Operand,
    attributes: dict[str, Any],
    is_max: bool,
    shape: tuple[int, ...],
    about: dict[str, Any],
) -> tuple[Operand, Operand]:
    """Return the maximum or minimum, and the value (of this shape) whose maximum it is."""
    if is_max:
        return t.builder.add("max", [value], attributes, **about), value
    negative = t.builder.node("negative", [value], about, shape)
    greatest = t.builder.add("max", [negative], attributes, **about)
    return t.builder.add("negative", [greatest], {}, **about), negative


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
    name, value = name_of(node).lstrip("_"), a["self"]
    axes = axes_of(a["dim"], rank_of(node))
    if name != "logsumexp":
        return t.builder.add(name, [value], {"axis": axes[0]}, **about)
    a.read.add("keepdim")  # the result's shape shows it
    for axis in reversed(axes):
        shape = list(t.builder.shape_of(value))
        shape.pop(axis)
        value = t.builder.node(name, [value], about, shape, axis=axis)
    return t.builder.reshape(value, about)


@RULES.of("sum", "mean", "amax", "amin", "var", "std")
def _reduce(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = name_of(node)
    axes = axes_of(a.get("dim"), rank_of(node))
    attributes = {"axis": axes, "keepdims": bool(a.get("keepdim", False))}
    if name in ("amax", "amin"):
        shape = tuple(node.args[0].meta["val"].shape)
        return _extremum(t, a["self"], attributes, name == "amax", shape, about)[0]
    result = t.builder.add(name.replace("std", "var"), [a["self"]], attributes, **about)
    if name not in ("var", "std"):
        return result
    correction = a.get("correction", 1 if a.get("unbiased", True) else 0)
    if correction is None or correction:
        count = math.prod(length_of(node, axis) for axis in axes)
        result = t.builder.add("*", [result, count / (count - (correction or 1))], {}, **about)
    return result if name == "var" else t.builder.add("sqrt", [result], {}, **about)


@RULES.of("argmax", "argmin")
def _argmax(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    value, axis = a["self"], a["dim"]
    a.read.add("keepdim")  # the result's shape shows it
    shape = t.builder.shape_of(value)
    if "argmin" in str(node.target):
        value = t.builder.node("negative", [value], about, shape, "float")
    if axis is None:
        value = t.builder.node("reshape", [value], about, (math.prod(shape),), "float")
        shape, axis = (1,), 0
    return _first_greatest(t, value, axis % len(shape), about)


@RULES.of("_prelu_kernel")
def _prelu(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    is_positive = t.builder.node(">", [a["self"], 0], about, kind="boolean")
    scaled = t.builder.add("*", [a["weight"], a["self"]], {}, **about)
    return t.builder.add("where", [is_positive, a["self"], scaled], {}, **about)


@RULES.of("prims.expm1", "prims.log1p")
def _near_zero(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if "log1p" in str(node.target):
        return t.builder.add("log", [t.builder.add("+", [a["self"], 1], {}, **about)], {}, **about)
    return t.builder.add("-", [t.builder.add("exp", [a["self"]], {}, **about), 1], {}, **about)


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


@RULES.of("where")
def _where(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    inputs = [a["condition"], _finite(a["self"]), _finite(a["other"])]
    return t.builder.add("where", inputs, {}, **about)


def _finite(value: Operand) -> Operand:
    """Return the lowest score of the shipped attention layers for minus infinity."""
    return EXCLUDED if value == -math.inf else value


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


@RULES.of(
    *("arange", "zeros", "ones", "full"),
    *("scalar_tensor", "linspace", "empty", "eye"),
    *LIKE,
)
def _constant(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    if node not in t.known:
        return unsupported(t, node, about)
    return t.builder.add("constant", [], {}, **about)
