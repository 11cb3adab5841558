"""The source of sliding windows in Keras: gathered axis by axis, and added up as matrix
products."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.extend.program import Dim, Node, Shape, order_of_taken, pads_of

Text = Callable[[Dim], str]


def _places(node: Node, number: int, count: Dim, text: Text) -> str:
    """Return the source of the indices of window entries along one axis, of shape ``[count,
    size]``."""
    step, apart, size = (
        Dim.of(node.attributes[name][number]) for name in ("stride", "dilation", "size")
    )
    starts = f'ops.arange({text(count)}, dtype="int32")[:, None]'
    offsets = f'ops.arange({text(size)}, dtype="int32")'
    starts += "" if step == Dim(1) else f" * {text(step)}"
    offsets += "" if apart == Dim(1) else f" * {text(apart)}"
    return f"{starts} + {offsets}"


def _windows(node: Node, shape: Shape, operand: str, text: Text) -> str:
    attributes, rank = node.attributes, len(shape)
    axes = attributes["axes"]
    pads = [(Dim.of(a), Dim.of(b)) for a, b in pads_of(attributes, rank)]
    if any(dim != Dim() for pair in pads for dim in pair):
        every = [f"({text(before)}, {text(after)})" for before, after in pads]
        fill = 'float("-inf")' if attributes["lowest"] else "0.0"
        operand = f"ops.pad({operand}, [{', '.join(every)}], constant_values={fill})"
    for number, axis in reversed([*enumerate(axes)]):
        places = _places(node, number, attributes["length"][number], text)
        operand = f"ops.take({operand}, {places}, axis={axis})"
    return f"ops.transpose({operand}, {order_of_taken(axes, rank)})"


def _overlap_add(node: Node, shape: Shape, operand: str, text: Text) -> str:
    attributes = node.attributes
    axes, rank = attributes["axes"], len(shape)
    left = [*range(rank)]
    for number, axis in enumerate(axes):
        window = axes[-1] + 1 + number
        before, length = (Dim.of(attributes[n][number]) for n in ("padding", "length"))
        after = Dim.of(attributes["after"][number])
        places = _places(node, number, shape[axis], text)
        whole = text(before + length + after)
        ones = f"ops.one_hot({places}, {whole}, dtype=self.compute_dtype)"
        ones += f"[:, :, {text(before)}:{text(before + length)}]"
        both = (left.index(axis), left.index(window))
        operand = f"ops.tensordot({operand}, {ones}, axes=({both}, (0, 1)))"
        left = [n for n in left if n not in (axis, window)] + [axis]
    kept = sorted(left)
    return f"ops.transpose({operand}, {[left.index(n) for n in kept]})"


FRAMING: Mapping[str, Callable[[Node, Shape, str, Text], str]] = {
    "windows": _windows,
    "overlap_add": _overlap_add,
}
