"""Which part of its operands a node needs for one entry of an axis of what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.program.dims import Shape, entries
from harness.program.infer import broadcast_shapes
from harness.program.ir import Node, Type

# A value and the axis of which one entry is meant; None is all of it.
Form = tuple[int, int | None]


class NoRow(Exception):
    """An entry of an axis cannot be made by itself; the message says of what, and why."""


def row_inputs(node: Node, axis: int, types: Mapping[int, Type]) -> list[Form]:
    """What a node needs of its operands to make one entry of an axis of its output, as the same
    node of these.

    Raises:
        NoRow: it needs more, or another node.
    """
    shapes = [types[value].shape for value in node.inputs]
    if node.op in _ELEMENTWISE:
        axes = _aligned(shapes, types[node.output].shape, axis)
    elif node.op in _AXES and (found := _AXES[node.op](node, shapes, axis)) is not None:
        axes = found
    else:
        raise NoRow(f"{node.op} goes over the steps, or mixes them")
    return list(zip(node.inputs, axes, strict=True))


_ELEMENTWISE = frozenset(
    [
        "exp",
        "log",
        "tanh",
        "sqrt",
        "negative",
        "erf",
        "sin",
        "cos",
        "floor",
        "add",
        "subtract",
        "multiply",
        "divide",
        "power",
        "less",
        "less_equal",
        "equal",
        "where",
        "astype",
        "stop_gradient",
        "broadcast_to",
    ]
)
Axes = Sequence[int | None]


def _aligned(shapes: Sequence[Shape], made: Shape, axis: int) -> Axes:
    """The axis of each operand that is broadcast to one; None where it has one entry, or none."""
    found: list[int | None] = []
    for shape in shapes:
        own = axis - (len(made) - len(shape))
        found.append(own if own >= 0 and shape[own] == made[axis] else None)
    return found


def _permute(node: Node, _: Sequence[Shape], axis: int) -> Axes:
    return [node.attributes["axes"][axis]]


def _expand(node: Node, _: Sequence[Shape], axis: int) -> Axes:
    return [axis - (axis > node.attributes["axis"])]


def _squeeze(node: Node, _: Sequence[Shape], axis: int) -> Axes:
    return [axis + (axis >= node.attributes["axis"])]


def _reshape(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """The same axis before, with as many entries before it and behind."""
    shape, made = shapes[0], node.attributes["shape"]
    wanted = (entries(made[:axis]), made[axis], entries(made[axis + 1 :]))
    for own, dim in enumerate(shape):
        if (entries(shape[:own]), dim, entries(shape[own + 1 :])) == wanted:
            return [own]
    return None


def _reduced(node: Node, shapes: Sequence[Shape], axis: int) -> Axes:
    if node.attributes["keepdims"]:
        return [axis]
    kept = [a for a in range(len(shapes[0])) if a not in node.attributes["axis"]]
    return [kept[axis]]


def _matmul(_: Node, shapes: Sequence[Shape], axis: int) -> Axes:
    left, right = shapes
    rank = max(len(left), len(right))
    if axis == rank - 2:
        return [len(left) - 2, None]
    if axis == rank - 1:
        return [None, len(right) - 1]
    outer = (left[:-2], right[:-2])
    return _aligned(outer, broadcast_shapes("@", outer), axis)


def _take(_: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    return [None, axis] if axis < len(shapes[1]) else None


def _along_another(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """Of a node that goes along one axis of its operands, which keep their places."""
    own = node.attributes.get("axis", len(shapes[0]) - 1)
    return None if axis == own else [axis] * len(shapes)


def _windows(node: Node, _: Sequence[Shape], axis: int) -> Axes | None:
    axes = node.attributes["axes"]
    if axis in axes or axes[-1] < axis <= axes[-1] + len(axes):
        return None
    return [axis if axis < axes[-1] else axis - len(axes)]


_AXES: Mapping[str, Callable[[Node, Sequence[Shape], int], Axes | None]] = {
    "permute_dims": _permute,
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "sum": _reduced,
    "max": _reduced,
    "matmul": _matmul,
    "take": _take,
    "one_hot": lambda node, shapes, axis: [axis] if axis < len(shapes[0]) else None,
    "windows": _windows,
    **dict.fromkeys(
        ("concat", "slice", "flip", "cumulative_sum", "argsort", "take_along_axis"), _along_another
    ),
}
