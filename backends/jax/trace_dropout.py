"""Rules that translate products with the random numbers of ``jax.random.bernoulli``: dropout."""

from __future__ import annotations

from typing import Any

from harness.extend.models import GraphBuilder, Operand

from . import patterns
from .jaxprs import Value
from .model_noise import MASK
from .trace import JaxTranslation, NodePlan, rule

# The largest error of a factor that float32 numbers give.
ROUNDING = 1e-6


@rule("select_n", "mul", "div")
def _dropout(t: JaxTranslation, v: Value) -> NodePlan | None:
    parts = dropped(v)
    if parts is None:
        return None
    x, mask, factor = parts
    keep = round(mask.params["keep"], 12)
    if not t.dropout:
        return NodePlan((x,), lambda g, operands, about: operands[0])
    if not t.layers or len(mask.shape) != len(x.shape):
        return None

    def emit(g: GraphBuilder, operands: list[Operand], about: dict[str, Any]) -> Operand:
        result: Operand = g.dropout(operands[0], keep, mask.shape, about)
        if abs(factor * keep - 1) > ROUNDING:
            result = g.add("*", [result, factor * keep], {}, **about)
        return result

    return NodePlan((x,), emit)


def dropped(v: Value) -> tuple[Value, Value, float] | None:
    """Return the values of a dropout, its random mask, and a factor: ``x * mask * factor``."""
    if v.op == "select_n" and len(v.inputs) == 3:
        mask, no, yes = patterns.stripped(v.inputs[0]), *v.inputs[1:]
        if mask.op != MASK or not no.is_number(0):
            return None
        x, factor = patterns.scaled(yes)
        return x, mask, factor
    if v.op not in ("mul", "div"):
        return None
    for one, other in (v.inputs, v.inputs[::-1]) if v.op == "mul" else (v.inputs,):
        if v.op == "mul" and (mask_and_factor := _mask(one)) is not None and other.shape == v.shape:
            return other, *mask_and_factor
        number = other.uniform()
        if number and (inner := dropped(one)) is not None and one.shape == v.shape:
            x, mask, factor = inner
            return x, mask, factor * (number if v.op == "mul" else 1 / number)
    return None


def undropped(t: JaxTranslation, v: Value) -> tuple[Value, float]:
    """Return a value before dropout, and the probability to keep an entry; without dropout, the
    value itself and 1."""
    parts = dropped(v)
    if parts is None or not t.dropout:
        return (v if parts is None else parts[0]), 1.0
    x, mask, factor = parts
    keep = round(mask.params["keep"], 12)
    exact = x.shape == mask.shape and abs(factor * keep - 1) < ROUNDING
    return (x, keep) if exact else (v, 1.0)


def _mask(v: Value) -> tuple[Value, float] | None:
    """Return the random mask, and its factor, if a value is a mask times a number."""
    v, factor = patterns.scaled(v)
    v = patterns.stripped(v)
    while v.op == "convert_element_type":
        v = patterns.stripped(v.inputs[0])
    return (v, factor) if v.op == MASK else None
