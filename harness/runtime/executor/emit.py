"""Builder of the list of instructions (operations on views of memory). The parts of a ``concat``
are computed directly in the memory of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.program.axes import inverse
from harness.program.dims import Attributes
from harness.program.ir import Kind, Node
from harness.runtime.executor.buffers import Constant, Instruction, Operand, View, fresh

Shape = tuple[int, ...]
VIEWS = frozenset(
    {"permute_dims", "broadcast_to", "expand_dims", "squeeze", "slice", "stop_gradient"}
)


class Assembler:
    """A builder of a list of instructions. Equal constants, and copies of equal views, are made
    only once."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self._constants: dict[tuple[float, Shape], View] = {}
        self._copies: dict[Any, View] = {}

    def emit(self, op: str, out: View, *inputs: Operand, **attributes: Any) -> None:
        """Append the instruction that writes ``op(inputs, **attributes)`` to the view ``out``."""
        self.instructions.append(Instruction(op, out, inputs, attributes))

    def in_memory(self, operand: Operand) -> View:
        """Return a view of an operand. If the operand is a constant, it gets memory that the
        executor fills with the constant's number in advance."""
        if isinstance(operand, View):
            return operand
        key = (operand.number, operand.shape)
        if key not in self._constants:
            view = fresh(operand.shape, role="constant")
            view.buffer.fills = ((view.size, operand.number),)
            self._constants[key] = view
        return self._constants[key]

    def compact(self, view: View) -> View:
        """Return a copy of a view with its axes in C order. If the same view has been copied
        before, return that copy."""
        key = (view.buffer, view.offset, view.shape, view.strides)
        if key not in self._copies:
            self._copies[key] = fresh(view.shape, view.buffer.kind)
            self.emit("copy", self._copies[key], view)
        return self._copies[key]

    def merged(self, view: View, *groups: int) -> View:
        """Return the view with merged axes, as :meth:`View.merge` does; copy the view first if that
        is necessary. ``groups`` are the numbers of neighbouring axes that become one axis."""
        matrix_view = view.merge(*groups) or self.compact(view).merge(*groups)
        assert matrix_view is not None
        return matrix_view

    def matrix(self, view: View, *groups: int) -> View:
        """Return the view with its axes merged to a matrix (or a stack of matrices) in which one
        axis has stride 1, as kernels for matmuls need it; copy the view first if that is necessary.
        ``groups`` are the numbers of neighbouring axes that become one axis."""
        matrix_view = view.merge(*groups)
        if matrix_view is None or (1 not in matrix_view.strides and 1 not in matrix_view.shape):
            matrix_view = self.compact(view).merge(*groups)
        assert matrix_view is not None
        return matrix_view

    def copy_to(self, place: View, operand: Operand) -> None:
        """Append an instruction that copies the value ``operand`` to the memory of the view
        ``place``, unless the value is already there."""
        if isinstance(operand, Constant) or not operand.same_place(place):
            self.emit("copy", place, operand)

    def into(self, home: View, op: str, *inputs: Operand, groups: Shape, **attributes: Any) -> None:
        """Append an instruction that writes the result of ``op`` to the view ``home``. The
        operation sees ``home`` with merged axes: ``groups`` are the numbers of neighbouring axes
        that become one axis.

        If the axes of ``home`` cannot be merged, the result is written elsewhere, and then copied
        to ``home``.
        """
        out = home.merge(*groups)
        if out is not None:
            self.emit(op, out, *inputs, **attributes)
            return
        aside = fresh(home.shape, home.buffer.kind)
        self.into(aside, op, *inputs, groups=groups, **attributes)
        self.copy_to(home, aside)


def apply_view(op: str, operand: Operand, attributes: Attributes) -> Operand:
    """Return the result of an operation that only makes a view of its input, such as ``squeeze``.
    The result shares the memory of ``operand``."""
    if isinstance(operand, Constant):
        operand_ = fresh(operand.shape)
        seen = apply_view(op, operand_, attributes)
        assert isinstance(seen, View)
        return Constant(operand.number, seen.shape)
    match op:
        case "permute_dims":
            return operand.permute(attributes["axes"])
        case "broadcast_to":
            return operand.broadcast(attributes["shape"])
        case "expand_dims":
            return operand.expand(attributes["axis"])
        case "squeeze":
            return operand.squeeze(attributes["axis"])
        case "slice":
            return operand.narrow(attributes["axis"], attributes["start"], attributes["stop"])
        case _:
            return operand


def find_homes(
    nodes: Sequence[Node], homes: Mapping[int, View], new: Callable[[int], View]
) -> dict[int, View]:
    """Choose the memory of values so that ``concat`` copies nothing: each part is computed directly
    in the result. Return a dictionary from value number to view.

    ``homes`` has the views of values whose memory is already fixed. ``new`` gets a value number,
    and makes a new view for the value.
    """
    places = dict(homes)
    computed = {o for node in nodes for o in node.outputs}

    def offer(value: int, place: View) -> None:
        if value in computed:
            places.setdefault(value, place)

    for node in reversed(nodes):
        if node.op == "concat":
            place = places.setdefault(node.output, new(node.output))
            axis, start = node.attributes["axis"], 0
            for part in node.inputs:
                stop = start + new(part).shape[axis]
                offer(part, place.narrow(axis, start, stop))
                start = stop
        elif node.op in VIEWS and node.output in places:
            place = places[node.output]
            if node.op == "permute_dims":
                place = place.permute(inverse(node.attributes["axes"]))
            elif node.op == "expand_dims":
                place = place.squeeze(node.attributes["axis"])
            elif node.op == "squeeze":
                place = place.expand(node.attributes["axis"])
            if place.shape == new(node.inputs[0]).shape:
                offer(node.inputs[0], place)
    return places


def elementwise(
    assembler: Assembler,
    op: str,
    inputs: Sequence[Operand],
    attributes: Attributes,
    place: View | Shape,
    kind: Kind = "float",
) -> View:
    """Append an instruction for one elementwise operation, and return the view of its result.

    ``place`` is either the view for the result, or the shape of the result. In the second case, a
    new view is made, whose axes are ordered in memory like the axes of an input.
    """
    shape = place.shape if isinstance(place, View) else place
    operands = list(inputs)
    if all(isinstance(i, Constant) for i in operands):
        operands[0] = assembler.in_memory(operands[0])
    operands = [
        i.broadcast(shape) if isinstance(i, View) and i.shape != shape else i for i in operands
    ]
    if not isinstance(place, View):
        dense = (i for i in operands if isinstance(i, View) and 0 not in i.strides)
        place = fresh(shape, kind, next(dense, None))
    assembler.emit(op, place, *operands, **attributes)
    return place


@dataclass(frozen=True, slots=True)
class Work:
    """The argument of a rule, i.e. of a function that converts one operation of a plan to
    instructions.

    It holds the operation's inputs and attributes, and the shape and kind of its result. ``home``
    is the view into which the rule must write the result, or None if the rule may choose.
    """

    assembler: Assembler
    inputs: Sequence[Operand]
    attributes: Attributes
    shape: Shape
    kind: Kind
    home: View | None

    def operands(self) -> list[View]:
        """Return views of all inputs. If an input is a constant, it gets memory that holds it."""
        return [self.assembler.in_memory(i) for i in self.inputs]

    def place(self, like: View | None = None) -> View:
        """Return the view for the result: ``home`` if it is given, else a new view whose axes are
        ordered in memory like the axes of ``like``."""
        return self.home or fresh(self.shape, self.kind, like)
