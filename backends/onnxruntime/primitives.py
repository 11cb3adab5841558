"""The primitives of the backend ``onnxruntime``: the operators of the format ``onnx``, except those
that lose NaN, spread NaN, or lose digits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from harness.extend.program import Node

from ..onnx.graph import Graph, Operator
from ..onnx.primitives_export import OPERATORS

# Pi as a sum: products of the first two parts and a half integer below LARGEST are exact.
PI = (3.1415926534682512, 1.2154201012607932e-10, 4.044532497591901e-21)
LARGEST = 1e5


def _max(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``max``. ``ReduceMax`` of onnxruntime ignores most NaN, so a second
    ``ReduceMax`` searches for NaN."""
    axes = graph.integers(*node.attributes["axis"])
    settings = {"keepdims": int(node.attributes["keepdims"]), "noop_with_empty_axes": 1}
    is_nan = graph.emit("Cast", [graph.emit("IsNaN", inputs)], to=onnx.TensorProto.FLOAT)
    any_nan = graph.emit("ReduceMax", [is_nan, axes], **settings)
    any_nan = graph.emit("Cast", [any_nan], to=onnx.TensorProto.BOOL)
    largest = graph.emit("ReduceMax", [*inputs, axes], **settings)
    graph.emit("Where", [any_nan, graph.number(np.nan), largest], output)


def _wave(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``sin`` or ``cos``. In float64, ``Sin`` and ``Cos`` of onnxruntime lose
    digits near their zeros, except at 0. So compute the sine of the distance to the nearest zero,
    with the sign of the slope there."""
    operator, first_zero, slope = ("Sin", 0.0, 1.0) if node.op == "sin" else ("Cos", 0.5, -1.0)
    if graph.dtype == "float32":
        graph.emit(operator, inputs, output)
        return
    half_turns = graph.emit("Mul", [*inputs, graph.number(1 / np.pi)])
    count = graph.emit("Round", [graph.emit("Sub", [half_turns, graph.number(first_zero)])])
    zero = graph.emit("Add", [count, graph.number(first_zero)])
    distance = inputs[0]
    for part in PI:
        distance = graph.emit("Sub", [distance, graph.emit("Mul", [zero, graph.number(part)])])
    odd = graph.emit("Mod", [count, graph.number(2.0)], fmod=1)
    is_even = graph.emit("Equal", [odd, graph.number(0.0)])
    sign = graph.emit("Where", [is_even, graph.number(slope), graph.number(-slope)])
    sine = graph.emit("Mul", [sign, graph.emit("Sin", [distance])])
    is_small = graph.emit("Less", [graph.emit("Abs", inputs), graph.number(LARGEST)])
    graph.emit("Where", [is_small, sine, graph.emit(operator, inputs)], output)


PRIMITIVES: Mapping[str, Operator] = {
    # `overlap_add` of the format is a product with 0/1 matrices, which spreads NaN to other sums.
    # The harness computes `overlap_add` with other primitives.
    **{op: operator for op, operator in OPERATORS.items() if op != "overlap_add"},
    "max": _max,
    "sin": _wave,
    "cos": _wave,
}
