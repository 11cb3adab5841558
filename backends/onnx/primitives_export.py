"""Functions that translate each primitive to operators of ONNX's default domain.

Each function adds the nodes of one primitive to a graph. Its arguments are ``(graph, node, inputs,
output)``; inputs and output are names of values in the graph. If onnxruntime has no float64 or
int64 kernel for an operator such as OneHot, other operators compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters

import numpy as np

from harness.extend import UsageError
from harness.extend.program import Dim, Node, order_of_taken, series

from .graph import ELEMENTS, INTEGERS, Graph, Operator

# Sliding windows are gathered axis by axis, and summed by products with 0/1 matrices.


def windows(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``windows`` as a Pad, a Gather for each axis, and a Transpose."""
    attributes = node.attributes
    axes, rank = attributes["axes"], len(graph.program.types[node.inputs[0]].shape)
    zero = Dim(0)
    value = inputs[0]
    pads = [Dim.of(d) for name in ("padding", "after") for d in attributes[name]]
    if any(pad != zero for pad in pads):
        fill = graph.number(-np.inf if attributes["lowest"] else 0.0)
        whole = [[zero] * rank, [zero] * rank]
        for number, axis in enumerate(axes):
            whole[0][axis], whole[1][axis] = pads[number], pads[len(axes) + number]
        value = graph.emit("Pad", [value, graph.shape((*whole[0], *whole[1])), fill])
    columns = [[Dim.of(dim) for dim in attributes[name]] for name in COLUMNS]
    for axis, *framed in reversed([*zip(axes, *columns, strict=True)]):
        value = graph.emit("Gather", [value, _window_positions(graph, *framed)], axis=axis)
    graph.emit("Transpose", [value], output, perm=order_of_taken(axes, rank))


# The names of the attributes that determine the positions of windows.
COLUMNS = ("length", "size", "stride", "dilation")


def _window_positions(graph: Graph, count: Dim, size: Dim, step: Dim, apart: Dim) -> str:
    """Return the name of a value in the graph: the positions of the entries of windows along one
    axis. Its shape is ``[count, size]``: number of windows, entries of a window. ``step`` is the
    distance of windows, and ``apart`` the distance of the entries of a window (dilation)."""
    known = graph.program.sizes
    if not {name for dim in (count, size, step, apart) for name in dim.names} - known.keys():
        numbers = (dim.resolve(known) for dim in (count, size, step, apart))
        windows_, places, between, within = numbers
        first = np.arange(windows_)[:, None] * between
        return graph.constant(first + np.arange(places) * within)
    starts = graph.emit("Mul", [graph.range(count), graph.length(step)])
    offsets = graph.emit("Mul", [graph.range(size), graph.length(apart)])
    return graph.emit("Add", [graph.emit("Unsqueeze", [starts, graph.integers(1)]), offsets])


def overlap_add(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write ``overlap_add`` as an Einsum with one matrix per axis. The matrix has ones at the
    positions of window entries, and zeros elsewhere.

    Raises:
        UsageError: the number of windows can vary, e.g. with the sequence length.
    """
    axes, shape = node.attributes["axes"], graph.program.types[node.inputs[0]].shape
    known = graph.program.sizes
    if any(set(shape[axis].names) - known.keys() for axis in axes):
        raise UsageError(
            f"{graph.program.name} cannot become an ONNX graph: overlap_add needs a fixed "
            "number of windows; give the axis a size"
        )
    names = ("size", "stride", "dilation", "padding", "length")
    columns = [_numbers(graph, node, name) for name in names]
    rows, ones = list(ascii_letters[: len(shape)]), []
    made = [*rows[: axes[-1] + 1], *rows[axes[-1] + 1 + len(axes) :]]
    terms = ["".join(rows)]
    for number, (axis, size, step, apart, before, length) in enumerate(
        zip(axes, *columns, strict=True)
    ):
        places = np.arange(shape[axis].resolve(known))[:, None] * step + np.arange(size) * apart
        table = (places[..., None] - before == np.arange(length)).astype(graph.dtype)
        made[axis] = rows[axis].upper()
        ones.append(graph.constant(table))
        terms.append(f"{rows[axis]}{rows[axes[-1] + 1 + number]}{made[axis]}")
    equation = f"{','.join(terms)}->{''.join(made)}"
    graph.emit("Einsum", [*inputs, *ones], output, equation=equation)


def _numbers(graph: Graph, node: Node, name: str) -> list[int]:
    return [Dim.of(dim).resolve(graph.program.sizes) for dim in node.attributes[name]]


# The end of a reversed slice: before the start of the axis.
BEGINNING = -(2**63)
# Primitives that are one ONNX operator without attributes.
SAME = {
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "sqrt": "Sqrt",
    "negative": "Neg",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "equal": "Equal",
    "take": "Gather",
    "matmul": "MatMul",
    "stop_gradient": "Identity",
}


def _identity(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit(SAME[node.op], inputs, output)


def _astype(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Cast", inputs, output, to=ELEMENTS[graph.dtype])


def _permute_dims(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Transpose", inputs, output, perm=list(node.attributes["axes"]))


def _broadcast_to(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Expand", [*inputs, graph.shape(node.attributes["shape"])], output)


def _reshape(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Reshape", [*inputs, graph.shape(node.attributes["shape"])], output)


def _arange(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Identity", [graph.range(Dim.of(node.attributes["stop"]))], output)


def _erf(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``erf``: in float32 with ONNX's own operator, in float64 as a Taylor
    series around the nearest point of a table, because onnxruntime has no float64 ``Erf``."""
    if graph.dtype == "float32":
        graph.emit("Erf", inputs, output)
        return
    size = graph.emit("Min", [graph.emit("Abs", inputs), graph.number(series.LAST)])
    nearest = graph.emit("Round", [graph.emit("Mul", [size, graph.number(1 / series.STEP)])])
    distance = graph.emit("Sub", [size, graph.emit("Mul", [nearest, graph.number(series.STEP)])])
    # If the input is NaN, use the first table point.
    points = graph.emit(
        "Max", [graph.emit("Cast", [nearest], to=INTEGERS), graph.constant(np.array(0))]
    )
    total = ""
    for column in reversed(series.erf_series()):
        term = graph.emit("Gather", [graph.constant(np.array(column)), points])
        total = graph.emit("Add", [graph.emit("Mul", [total, distance]), term]) if total else term
    graph.emit("Mul", [total, graph.emit("Sign", inputs)], output)


def _expand_dims(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Unsqueeze", [*inputs, graph.integers(node.attributes["axis"])], output)


def _squeeze(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Squeeze", [*inputs, graph.integers(node.attributes["axis"])], output)


def _concat(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("Concat", inputs, output, axis=node.attributes["axis"])


def _where(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``where``. For booleans, logical operators are used, because onnxruntime
    does not support ``Where`` for them."""
    if graph.program.types[node.output].kind != "bool":
        graph.emit("Where", inputs, output)
        return
    condition, a, b = inputs
    one = graph.emit("And", [condition, a])
    other = graph.emit("And", [graph.emit("Not", [condition]), b])
    graph.emit("Or", [one, other], output)


def _slice(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    ends = [graph.length(Dim.of(node.attributes[end])) for end in ("start", "stop")]
    graph.emit("Slice", [*inputs, *ends, graph.integers(node.attributes["axis"])], output)


def _flip(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    axis = node.attributes["axis"]
    bounds = [graph.integers(n) for n in (-1, BEGINNING, axis, -1)]
    graph.emit("Slice", [*inputs, *bounds], output)


def _take_along_axis(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("GatherElements", inputs, output, axis=-1)


def _cumulative_sum(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    graph.emit("CumSum", [*inputs, graph.constant(np.array(-1))], output)


def _argsort(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write the primitive ``argsort`` as TopK, which is stable: among equal entries, the lower
    index comes first."""
    length = graph.length(graph.program.types[node.output].shape[-1])
    graph.emit("TopK", [*inputs, length], f"{output}/sorted", output, axis=-1, largest=0, sorted=1)


def _one_hot(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    classes = graph.range(Dim.of(node.attributes["classes"]))
    column = graph.emit("Unsqueeze", [*inputs, graph.integers(-1)])
    graph.emit("Cast", [graph.emit("Equal", [column, classes])], output, to=ELEMENTS[graph.dtype])


def _segment_sum(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    values, indices = (graph.program.types[value] for value in node.inputs)
    rest = values.shape[len(indices.shape) :]
    rows = Dim.of(node.attributes["rows"])
    zeros = graph.emit("Expand", [graph.number(0.0), graph.shape((rows, *rest))])
    column = graph.emit("Reshape", [inputs[1], graph.integers(-1, 1)])
    # Flatten the indices to one axis, whose length Reshape infers.
    joined = graph.shape((Dim(-1), *rest))
    flat = graph.emit("Reshape", [inputs[0], joined])
    graph.emit("ScatterND", [zeros, column, flat], output, reduction="add")


def _reduction(kind: str) -> Operator:
    def reduce(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
        axes = graph.integers(*node.attributes["axis"])
        keep = int(node.attributes["keepdims"])
        graph.emit(kind, [*inputs, axes], output, keepdims=keep, noop_with_empty_axes=1)

    return reduce


def _tensordot(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    left_rank, right_rank = (len(graph.program.types[value].shape) for value in node.inputs)
    left = list(ascii_letters[:left_rank])
    right = list(ascii_letters[left_rank : left_rank + right_rank])
    for a, b in zip(*node.attributes["axes"], strict=True):
        right[b] = left[a]
    summed = {left[a] for a in node.attributes["axes"][0]}
    kept = [letter for letter in left + right if letter not in summed]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(kept)}"
    graph.emit("Einsum", inputs, output, equation=equation)


OPERATORS: Mapping[str, Operator] = {
    **dict.fromkeys(SAME, _identity),
    "astype": _astype,
    "permute_dims": _permute_dims,
    "broadcast_to": _broadcast_to,
    "arange": _arange,
    "erf": _erf,
    "reshape": _reshape,
    "windows": windows,
    "overlap_add": overlap_add,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": _concat,
    "where": _where,
    "slice": _slice,
    "flip": _flip,
    "take_along_axis": _take_along_axis,
    "cumulative_sum": _cumulative_sum,
    "argsort": _argsort,
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "sum": _reduction("ReduceSum"),
    "max": _reduction("ReduceMax"),
    "tensordot": _tensordot,
}
