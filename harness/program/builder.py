"""Builder of node lists, which numbers the values and infers their types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program.dims import ONE, Dim, Shape
from harness.program.infer import infer
from harness.program.ir import Block, Node, Type


@dataclass
class Builder:
    """A builder that appends operations to a list of nodes. If the body of a loop or call is open,
    it appends to this body.

    ``types`` and ``names`` map value numbers to types and names.
    """

    types: dict[int, Type] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    place: str = ""
    _open: list[list[Node]] = field(default_factory=list)

    def value(self, type_: Type, name: str = "") -> int:
        """Create a new value with a type; return its number."""
        number = len(self.types)
        self.types[number] = type_
        if name:
            self.names[number] = name
        return number

    def name(self, value: int, name: str, place: str) -> None:
        """Give a name to a value, unless the value has one already. ``place`` is the position (file
        and line) of the equation that defines the name."""
        if value in self.names:
            return
        self.names[value] = name
        nodes = self._open[-1] if self._open else self.nodes
        if nodes and nodes[-1].outputs == (value,):
            nodes[-1] = replace(nodes[-1], place=place)

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append an operation and return the value number of its result. Raises
        :class:`~harness.program.infer.TypeMismatch` if the operands do not fit."""
        type_ = infer(op, tuple(self.types[i] for i in inputs), attributes)
        output = self.value(type_)
        self.append(Node(op, inputs, (output,), attributes, place=self.place))
        return output

    def append(self, node: Node) -> None:
        """Append a node to the innermost open body, or to the program if no body is open."""
        (self._open[-1] if self._open else self.nodes).append(node)

    def begin(self) -> None:
        """Open the body of a loop or call. New nodes are appended to this body until
        :meth:`end`."""
        self._open.append([])

    def end(self, inputs: Sequence[int], outputs: Sequence[int]) -> Block:
        """Close the innermost body; return it as a block with these inputs and outputs."""
        return Block(tuple(inputs), tuple(self._open.pop()), tuple(outputs))

    def scan(
        self,
        body: Block,
        carries: Sequence[int],
        sequences: Sequence[int],
        *,
        reverse: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Append a loop over the first axis of ``sequences``. Return two lists of value numbers:
        the carried values after the last step, and the stacked values.

        ``carries`` are the carried values before the first step. The body's inputs are the carried
        values, then a slice of each sequence. Its outputs are the carried values for the next step,
        then the values to stack. With ``reverse``, the loop runs from the last step to the first,
        but entry t of a stack still belongs to step t.
        """
        length = self.types[sequences[0]].shape[0]
        count = len(carries)
        last = [self.value(self.types[c]) for c in carries]
        types = [self.types[output] for output in body.outputs[count:]]
        stacked = [self.value(Type((length, *t.shape), t.kind, t.bound)) for t in types]
        attributes = {"carries": count, "reverse": reverse}
        inputs = (*carries, *sequences)
        self.append(Node("scan", inputs, (*last, *stacked), attributes, body, self.place))
        return last, stacked

    def constant(self, value: float) -> int:
        """Append a literal number; return its value number."""
        return self.emit("constant", value=float(value))

    def filled(self, value: float, shape: Shape) -> int:
        """Append an array of the given shape in which every entry is ``value``."""
        number = self.constant(value)
        return self.emit("broadcast_to", number, shape=shape) if shape else number

    def zeros(self, shape: Shape) -> int:
        """Append an array of zeros with ``shape``; return its value number."""
        return self.filled(0.0, shape)

    def reduce_to(self, value: int, shape: Shape) -> int:
        """Sum a value over all axes that a broadcast from ``shape`` has added or expanded, so that
        the result has this ``shape``."""
        value_shape = self.types[value].shape
        extra = len(value_shape) - len(shape)
        axes = tuple(range(extra)) + tuple(
            axis + extra
            for axis, dim in enumerate(shape)
            if dim == ONE and value_shape[axis + extra] != ONE
        )
        if axes and len(axes) == extra:
            value = self.emit("sum", value, axis=axes, keepdims=False)
        elif axes:
            value = self.emit("sum", value, axis=axes, keepdims=True)
            for _ in range(extra):
                value = self.emit("squeeze", value, axis=0)
        return value

    def mean(self, value: int, axes: Iterable[int], *, keepdims: bool) -> int:
        """Append the mean of a value over ``axes``. With ``keepdims``, these axes stay, with length
        1."""
        axes = tuple(axes)
        dims = tuple(self.types[value].shape[a] for a in axes)
        total = self.emit("sum", value, axis=axes, keepdims=keepdims)
        return self.emit("divide", total, self.emit("extent", dims=dims))

    def axis_first(self, value: int, axis: int) -> int:
        """Append a permutation that makes ``axis`` the first axis; return the result's number."""
        other_axes = (a for a in range(len(self.types[value].shape)) if a != axis)
        return self.emit("permute_dims", value, axes=(axis, *other_axes)) if axis else value

    def axis_back(self, value: int, axis: int) -> int:
        """Append a permutation that moves the first axis to the position ``axis``; this undoes
        :meth:`axis_first`."""
        rank = len(self.types[value].shape)
        order = (*range(1, axis + 1), 0, *range(axis + 1, rank))
        return self.emit("permute_dims", value, axes=order) if axis else value

    def slice_axis(self, value: int, axis: int, start: Dim | int, stop: Dim | int) -> int:
        """Append the slice ``start:stop`` along an axis, and return its number. If the slice is the
        whole axis, append nothing and return ``value``."""
        start, stop = Dim.of(start), Dim.of(stop)
        if start == Dim() and stop == self.types[value].shape[axis]:
            return value
        return self.emit("slice", value, axis=axis, start=start, stop=stop)
