"""Fused operations: what a backend may offer beyond the primitives, for plans to use.

Each means exactly the composition of primitives that it is found as, and a backend may offer any
subset: a plan holds only those that its backend has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import ONE
from harness.program.infer import INFER as PRIMITIVES
from harness.program.infer import Infer, TypeMismatch
from harness.program.ir import Node, Type

FUSED: Mapping[str, str] = {
    "sigmoid": "1 / (1 + exp(-x))",
    "relu": "where(x <= 0, 0, x)",
    "clip": "minimum(maximum(x, low), high)",
    "sigmoid_gradient": "g * y * (1 - y), y the result of sigmoid",
    "tanh_gradient": "g * (1 - y * y), y the result of tanh",
    "relu_gradient": "where(y <= 0, 0, g), y the result of relu",
    "clip_gradient": "g where low < x < high, else 0",
    "addmm": "c + a @ b: a [m, k], b [k, n], c [m, n] or [n]",
    "scatter_add": "x with y[..., 0] added at x[..., indices[..., 0]]",
    "softmax": "exp(x - max(x)) over its sum, along the last axis",
    "log_sum_exp": "log(sum(exp(x))) along the last axis, kept as length 1",
}
# What takes the place of a primitive where it may be less exact, on every path: no node of a plan.
IN_PLACE: Mapping[str, str] = {
    "loose_max": "max, which may leave NaN out: where all that is made of it has them anyway",
}


def _first(types: tuple[Type, ...], _: Mapping[str, Any]) -> Type:
    return Type(types[0].shape)


def _addmm(types: tuple[Type, ...], attributes: Mapping[str, Any]) -> Type:
    added, left, right = types
    product = PRIMITIVES["matmul"]((left, right), attributes)
    if PRIMITIVES["add"]((added, product), attributes) != product:
        raise TypeMismatch(f"addmm: {added} does not fit {product}")
    return product


def _log_sum_exp(types: tuple[Type, ...], _: Mapping[str, Any]) -> Type:
    return Type((*types[0].shape[:-1], ONE))


INFER: Mapping[str, Infer] = {
    **dict.fromkeys(("sigmoid", "relu", "clip", "scatter_add", "softmax"), _first),
    **{f"{op}_gradient": PRIMITIVES["add"] for op in ("sigmoid", "tanh", "relu", "clip")},
    "addmm": _addmm,
    "log_sum_exp": _log_sum_exp,
}


def infer(op: str, types: tuple[Type, ...], attributes: Mapping[str, Any]) -> Type:
    """The type of a primitive's or a fused operation's result."""
    rule = PRIMITIVES[op] if op in PRIMITIVES else INFER[op]
    return rule(types, attributes)


def emit(builder: Builder, op: str, *inputs: int, **attributes: Any) -> int:
    """Append a primitive or a fused operation."""
    if op in PRIMITIVES:
        return builder.emit(op, *inputs, **attributes)
    output = builder.value(infer(op, tuple(builder.types[i] for i in inputs), attributes))
    builder.append(Node(op, inputs, (output,), attributes, place=builder.place))
    return output
