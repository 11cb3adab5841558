"""The derivative rules of primitives that work on each entry by itself; see :mod:`.rules`."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt

from harness.program.autodiff.reverse import Reverse, Rule
from harness.program.ir import Node

# The slope of erf at 0.
SLOPE = 2 / sqrt(pi)


def _exp(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], r.emit("multiply", g, r.see(node.output)))


def _log(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], r.emit("divide", g, r.see(node.inputs[0])))


def _tanh(r: Reverse, node: Node, g: int) -> None:
    y = r.see(node.output)
    if r.offers("tanh_gradient"):
        r.add(node.inputs[0], r.emit("tanh_gradient", g, y))
        return
    slope = r.emit("subtract", r.constant(1.0), r.emit("multiply", y, y))
    r.add(node.inputs[0], r.emit("multiply", g, slope))


def _sqrt(r: Reverse, node: Node, g: int) -> None:
    half = r.emit("multiply", g, r.constant(0.5))
    r.add(node.inputs[0], r.emit("divide", half, r.see(node.output)))


def _erf(r: Reverse, node: Node, g: int) -> None:
    """``2 / sqrt(pi) * exp(-x * x)``, the integrand by which erf is defined."""
    x = r.see(node.inputs[0])
    bell = r.emit("exp", r.emit("negative", r.emit("multiply", x, x)))
    r.add(node.inputs[0], r.emit("multiply", g, r.emit("multiply", r.constant(SLOPE), bell)))


def _sin(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], r.emit("multiply", g, r.emit("cos", r.see(node.inputs[0]))))


def _cos(r: Reverse, node: Node, g: int) -> None:
    slope = r.emit("negative", r.emit("sin", r.see(node.inputs[0])))
    r.add(node.inputs[0], r.emit("multiply", g, slope))


def _negative(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], r.emit("negative", g))


def _add(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], g)
    r.add(node.inputs[1], g)


def _subtract(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], g)
    if r.active(node.inputs[1]):
        r.add(node.inputs[1], r.emit("negative", g))


def _multiply(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    if r.active(a):
        r.add(a, r.emit("multiply", g, r.see(b)))
    if r.active(b):
        r.add(b, r.emit("multiply", g, r.see(a)))


def _divide(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    quotient = r.emit("divide", g, r.see(b))
    r.add(a, quotient)
    if r.active(b):
        r.add(b, r.emit("negative", r.emit("multiply", quotient, r.see(node.output))))


def _power(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    if r.active(a):
        below = r.emit("power", r.see(a), r.emit("subtract", r.see(b), r.constant(1.0)))
        r.add(a, r.emit("multiply", g, r.emit("multiply", r.see(b), below)))
    if r.active(b):
        rate = r.emit("multiply", r.see(node.output), r.emit("log", r.see(a)))
        r.add(b, r.emit("multiply", g, rate))


def _where(r: Reverse, node: Node, g: int) -> None:
    condition, a, b = node.inputs
    zero = r.constant(0.0)
    if r.active(a):
        r.add(a, r.emit("where", r.see(condition), g, zero))
    if r.active(b):
        r.add(b, r.emit("where", r.see(condition), zero, g))


ELEMENTWISE: Mapping[str, Rule] = {
    "exp": _exp,
    "log": _log,
    "tanh": _tanh,
    "sqrt": _sqrt,
    "erf": _erf,
    "sin": _sin,
    "cos": _cos,
    "negative": _negative,
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "where": _where,
}
