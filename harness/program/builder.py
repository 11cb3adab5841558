"""Build a list of nodes: number the values, infer their types, remember their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program.dims import ONE, Dim, Shape
from harness.program.infer import infer
from harness.program.ir import Block, Node, Type


@dataclass
class Builder:
    """The values made so far, and the stack of open node lists (bodies being filled)."""

    types: dict[int, Type] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    place: str = ""
    _open: list[list[Node]] = field(default_factory=list)

    def value(self, type_: Type, name: str = "") -> int:
        """Add a value and return its number."""
        number = len(self.types)
        self.types[number] = type_
        if name:
            self.names[number] = name
        return number

    def name(self, value: int, name: str, place: str) -> None:
        """Name a value that has no name. ``place`` is the equation that names it."""
        if value in self.names:
            return
        self.names[value] = name
        nodes = self._open[-1] if self._open else self.nodes
        if nodes and nodes[-1].outputs == (value,):
            nodes[-1] = replace(nodes[-1], place=place)

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append an operation; raises :class:`~harness.program.infer.TypeMismatch`."""
        type_ = infer(op, tuple(self.types[i] for i in inputs), attributes)
        output = self.value(type_)
        self.append(Node(op, inputs, (output,), attributes, place=self.place))
        return output

    def append(self, node: Node) -> None:
        """Append a finished node to the open list."""
        (self._open[-1] if self._open else self.nodes).append(node)

    def begin(self) -> None:
        """Open a body, which gets the emitted nodes until :meth:`end`."""
        self._open.append([])

    def end(self, inputs: Sequence[int], outputs: Sequence[int]) -> Block:
        """Close the body and return it."""
        return Block(tuple(inputs), tuple(self._open.pop()), tuple(outputs))

    def scan(
        self,
        body: Block,
        carries: Sequence[int],
        sequences: Sequence[int],
        *,
        reverse: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Loop over the first axis of ``sequences``; return (last carried values, stacked values).

        The body takes the carried values, then one slice of each sequence. It gives the next
        carried values, then those to stack. ``reverse`` runs from the last step to the first;
        stacked values keep the order of time.
        """
        length = self.types[sequences[0]].shape[0]
        count = len(carries)
        last = [self.value(self.types[c]) for c in carries]
        made = [self.types[output] for output in body.outputs[count:]]
        stacked = [self.value(Type((length, *t.shape), t.kind, t.bound)) for t in made]
        attributes = {"carries": count, "reverse": reverse}
        inputs = (*carries, *sequences)
        self.append(Node("scan", inputs, (*last, *stacked), attributes, body, self.place))
        return last, stacked

    def constant(self, value: float) -> int:
        """Append a literal number."""
        return self.emit("constant", value=float(value))

    def filled(self, value: float, shape: Shape) -> int:
        """Fill a shape with one number."""
        number = self.constant(value)
        return self.emit("broadcast_to", number, shape=shape) if shape else number

    def zeros(self, shape: Shape) -> int:
        """Fill a shape with zeros."""
        return self.filled(0.0, shape)

    def reduce_to(self, value: int, shape: Shape) -> int:
        """Sum a value down to ``shape``, from which it had been broadcast."""
        found = self.types[value].shape
        extra = len(found) - len(shape)
        axes = tuple(range(extra)) + tuple(
            axis + extra
            for axis, dim in enumerate(shape)
            if dim == ONE and found[axis + extra] != ONE
        )
        if axes and len(axes) == extra:
            value = self.emit("sum", value, axis=axes, keepdims=False)
        elif axes:
            value = self.emit("sum", value, axis=axes, keepdims=True)
            for _ in range(extra):
                value = self.emit("squeeze", value, axis=0)
        return value

    def mean(self, value: int, axes: Iterable[int], *, keepdims: bool) -> int:
        """Append the mean over some axes."""
        axes = tuple(axes)
        dims = tuple(self.types[value].shape[a] for a in axes)
        total = self.emit("sum", value, axis=axes, keepdims=keepdims)
        return self.emit("divide", total, self.emit("extent", dims=dims))

    def axis_first(self, value: int, axis: int) -> int:
        """Move an axis before all others."""
        rest = (a for a in range(len(self.types[value].shape)) if a != axis)
        return self.emit("permute_dims", value, axes=(axis, *rest)) if axis else value

    def axis_back(self, value: int, axis: int) -> int:
        """Move the first axis to where it was, which undoes :meth:`axis_first`."""
        rank = len(self.types[value].shape)
        order = (*range(1, axis + 1), 0, *range(axis + 1, rank))
        return self.emit("permute_dims", value, axes=order) if axis else value

    def slice_axis(self, value: int, axis: int, start: Dim | int, stop: Dim | int) -> int:
        """Take ``start:stop`` along one axis; return the value itself if that is all of it."""
        start, stop = Dim.of(start), Dim.of(stop)
        if start == Dim() and stop == self.types[value].shape[axis]:
            return value
        return self.emit("slice", value, axis=axis, start=start, stop=stop)
