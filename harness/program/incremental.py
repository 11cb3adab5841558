"""Conversion of a sequence model to a program that computes one step, e.g. to generate text.

The new program computes values with a time axis for the current step only; such a one-step value is
called a *row*. If a row depends on all earlier steps of a value, the value is cached: it becomes a
state with ``limit`` steps, into which each step writes its row. For example, attention caches keys
and values. A window over the last steps caches these steps, and a scan keeps its carried values. A
step therefore recomputes nothing of earlier steps.

The result is correct only if no step depends on later steps, because cache entries after the
current step are arbitrary. :func:`incremental` does not check this. Callers must compare the
results of single steps with the results of the whole program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim, Shape, entries
from harness.program.infer import broadcast_shapes
from harness.program.ir import (
    Block,
    Node,
    Port,
    Program,
    Type,
    free_values,
    inline_calls,
    needed_nodes,
    reads,
)
from harness.program.primitives import ELEMENTWISE

# The parts of its operands that a node needs to compute one entry along an axis of its output.

# A pair (value, axis) stands for a single entry along the axis, or with None for the whole value.
Part = tuple[int, int | None]


class NoRow(Exception):
    """Error: a single time step of a value cannot be computed without the other time steps; the
    message names the value and the reason."""


def row_inputs(node: Node, axis: int, types: Mapping[int, Type]) -> list[Part]:
    """Return what a node needs to compute one entry along ``axis`` of its output: a list of parts
    of its operands.

    A part is (value, axis) for one entry along an axis of the operand, or (value, None) for the
    whole operand.

    Raises:
        NoRow: the node cannot compute a single entry from such parts of its operands.
    """
    shapes = [types[value].shape for value in node.inputs]
    if node.op in _ALIGNED:
        axes = _aligned(shapes, types[node.output].shape, axis)
    elif node.op in _AXES and (operand_axes := _AXES[node.op](node, shapes, axis)) is not None:
        axes = operand_axes
    else:
        raise NoRow(f"{node.op} cannot be computed for one time step alone")
    return list(zip(node.inputs, axes, strict=True))


_ALIGNED = ELEMENTWISE | {"astype", "stop_gradient", "broadcast_to"}
Axes = Sequence[int | None]


def _aligned(shapes: Sequence[Shape], result: Shape, axis: int) -> Axes:
    """Return, for each operand of an elementwise node, the axis of the operand that corresponds to
    ``axis`` of the result. The axis is None if the operand lacks it or has length 1 along it.
    ``shapes`` are the shapes of the operands, and ``result`` is the shape of the result."""
    axes: list[int | None] = []
    for shape in shapes:
        operand_axis = axis - (len(result) - len(shape))
        axes.append(
            operand_axis if operand_axis >= 0 and shape[operand_axis] == result[axis] else None
        )
    return axes


def _reshape(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """Return a list with the operand's axis that becomes ``axis`` of the reshaped result; None if
    the reshape splits or merges this axis."""
    shape, result = shapes[0], node.attributes["shape"]
    split = (entries(result[:axis]), result[axis], entries(result[axis + 1 :]))
    for operand_axis, dim in enumerate(shape):
        if (entries(shape[:operand_axis]), dim, entries(shape[operand_axis + 1 :])) == split:
            return [operand_axis]
    return None


def _reduction(node: Node, shapes: Sequence[Shape], axis: int) -> Axes:
    if node.attributes["keepdims"]:
        return [axis]
    remaining = [a for a in range(len(shapes[0])) if a not in node.attributes["axis"]]
    return [remaining[axis]]


def _matmul(_: Node, shapes: Sequence[Shape], axis: int) -> Axes:
    left, right = shapes
    rank = max(len(left), len(right))
    if axis == rank - 2:
        return [len(left) - 2, None]
    if axis == rank - 1:
        return [None, len(right) - 1]
    outer = (left[:-2], right[:-2])
    return _aligned(outer, broadcast_shapes("@", outer), axis)


def _other_axis(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """Return the axis of each operand that corresponds to ``axis`` of the result, for operations
    that work along a single axis (e.g. ``flip``). All operands get ``axis`` itself. The result is
    None if the operation works along ``axis``."""
    worked_axis = node.attributes.get("axis", len(shapes[0]) - 1)
    return None if axis == worked_axis else [axis] * len(shapes)


def _windows(node: Node, _: Sequence[Shape], axis: int) -> Axes | None:
    axes = node.attributes["axes"]
    if axis in axes or axes[-1] < axis <= axes[-1] + len(axes):
        return None
    return [axis if axis < axes[-1] else axis - len(axes)]


_AXES: Mapping[str, Callable[[Node, Sequence[Shape], int], Axes | None]] = {
    "permute_dims": lambda node, _, axis: [node.attributes["axes"][axis]],
    "expand_dims": lambda node, _, axis: [axis - (axis > node.attributes["axis"])],
    "squeeze": lambda node, _, axis: [axis + (axis >= node.attributes["axis"])],
    "reshape": _reshape,
    "sum": _reduction,
    "max": _reduction,
    "matmul": _matmul,
    "take": lambda _, shapes, axis: [None, axis] if axis < len(shapes[1]) else None,
    "one_hot": lambda _, shapes, axis: [axis] if axis < len(shapes[0]) else None,
    "windows": _windows,
    **dict.fromkeys(
        ("concat", "slice", "flip", "cumulative_sum", "argsort", "take_along_axis"), _other_axis
    ),
}


# The values on which one step of the output depends, and the needed part of each value.

TIME = Dim.of("time")


def time_axes(type_: Type) -> list[int]:
    """Return the positions of the axes whose dimension is ``time``, e.g. ``[1]`` for ``[batch,
    time, units]``."""
    return [axis for axis, dim in enumerate(type_.shape) if dim == TIME]


def special_kind(node: Node, axis: int) -> str:
    """Return the kind of a node that needs its own method to compute a row (one time step): "table"
    (e.g. position embeddings), "window", "arange" or "scan".

    Return "" for all other nodes. For them, the same operation computes the row from the rows of
    the operands.
    """
    if node.op == "slice" and node.attributes["axis"] == axis:
        return "table"
    if node.op == "windows" and axis in node.attributes["axes"]:
        return "window"
    return node.op if node.op in ("arange", "scan") else ""


class StepNeeds:
    """The values that are needed to compute one time step of ``value``, an output of the program.

    - ``nodes`` are the nodes on which this output depends.
    - ``moving`` has the values that depend on inputs with a time axis.
    - ``result`` is the pair (output, its time axis).
    - ``needed_parts`` maps a value to a set: it contains the time axis if one step of the value is
      needed, and None if the whole value is needed.

    Raises:
        NoRow: a step cannot be computed separately.
    """

    def __init__(self, program: Program, value: int) -> None:
        self.program, self.types = program, program.types
        self.nodes = needed_nodes(inline_calls(program.nodes), [value])
        self.moving = {p.value for p in program.inputs if time_axes(self.types[p.value])}
        for node in self.nodes:
            if not self.moving.isdisjoint(reads(node)):
                self.moving.update(node.outputs)
        self.needed_parts: dict[int, set[int | None]] = {}
        self.result: Part = (value, self._time_axis(value))
        self._add_need(self.result)
        for node in reversed(self.nodes):
            for number, output in enumerate(node.outputs):
                for axis in tuple(self.needed_parts.get(output, ())):
                    for part in self._operand_parts(node, number, axis):
                        self._add_need(part)

    def named(self, value: int) -> str:
        """Return the name of a value, or a description of its type if it has no name, for an error
        message."""
        return self.program.names.get(value, f"a value {self.types[value]}")

    def _time_axis(self, value: int) -> int:
        """Return the time axis of a value; raise :class:`NoRow` if it has none or several."""
        axes, shape = time_axes(self.types[value]), self.types[value].shape
        if len(axes) != 1 or sum("time" in dim.names for dim in shape) != 1:
            raise NoRow(f"{self.named(value)} does not have exactly one time axis")
        return axes[0]

    def _add_need(self, part: Part) -> None:
        value, axis = part
        parts = self.needed_parts.setdefault(value, set())
        parts.add(axis)
        if axis is None and value in self.moving:
            parts.add(self._time_axis(value))
            if self.types[value].kind != "float" or any(
                port.value == value for port in self.program.inputs
            ):
                raise NoRow(f"{self.named(value)} is read at all time steps at once")

    def _operand_parts(self, node: Node, number: int, axis: int | None) -> Iterable[Part]:
        """Return the parts of its operands that a node needs to compute a row (one time step along
        ``axis``) of its output ``number``. If ``axis`` is None, the node computes the whole output.
        """
        if axis is None:
            is_moving = node.outputs[number] in self.moving
            return [] if is_moving else [(value, None) for value in reads(node)]
        kind = special_kind(node, axis)
        if kind == "arange":
            return []
        if not kind:
            return row_inputs(node, axis, self.types)
        if kind == "scan":
            return self._scan_parts(node, number, axis)
        return self._table_parts(node) if kind == "table" else self._window_parts(node, axis)

    def _table_parts(self, node: Node) -> Iterable[Part]:
        if node.inputs[0] in self.moving or Dim.of(node.attributes["start"]) != Dim():
            raise NoRow(f"{self.named(node.output)} is a slice of time steps")
        return [(node.inputs[0], None)]

    def _window_parts(self, node: Node, axis: int) -> Iterable[Part]:
        attributes = node.attributes
        span = Dim.of(attributes["dilation"][0]) * (Dim.of(attributes["size"][0]) - 1)
        framing = [Dim.of(attributes[name][0]) for name in ("stride", "padding", "after")]
        if len(attributes["axes"]) > 1 or attributes["lowest"] or framing != [ONE, span, Dim()]:
            raise NoRow(
                f"{self.named(node.output)} has windows that do not end at the current step"
            )
        return [(node.inputs[0], axis)]

    def _scan_parts(self, node: Node, number: int, axis: int) -> Iterable[Part]:
        carried = node.inputs[: node.carries]
        if node.reverse or number < node.carries or axis != 0:
            raise NoRow(
                f"{self.named(node.outputs[number])} comes from a reversed scan, or from the last "
                "step of a scan"
            )
        if not self.moving.isdisjoint(carried):
            raise NoRow(
                f"the initial state of the scan for {self.named(node.outputs[number])} "
                "depends on the text"
            )
        whole_values = [(value, None) for value in (*carried, *free_values(node.block))]
        return [*whole_values, *((value, 0) for value in node.inputs[node.carries :])]


POSITION = "position"


def incremental(program: Program, output: str, limit: int) -> Program:
    """Return a program that computes one time step of a program's output ``output`` per run, e.g.
    to generate text.

    The inputs of the new program have one time step. An additional input ``position`` is the number
    of the step, from 0 to ``limit - 1``. The state of the new program holds the cached values,
    which are not used at position 0. The original program must have no state.

    Raises:
        NoRow: a step cannot be computed separately; the message says why.
    """
    if program.state:
        raise NoRow("the model has a state")
    (value,) = (port.value for port in program.outputs if port.name == output)
    return _StepBuilder(StepNeeds(program, value), Dim(limit)).build_program(output)


@dataclass
class _StepBuilder:
    """A builder of the program that computes one step. ``parts`` maps each needed part (value,
    axis) of the original program to its value in the new program; a part is one entry along the
    axis, or the whole value if the axis is None. ``state`` has the new program's states as pairs
    (port, value in the next step)."""

    needs: StepNeeds
    limit: Dim
    build: Builder = field(default_factory=Builder)
    parts: dict[Part, int] = field(default_factory=dict)
    state: list[tuple[Port, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = self.needs.program
        self.types, self.needed_parts = self.program.types, self.needs.needed_parts

    def build_program(self, output: str) -> Program:
        """Build and return the program that computes one step of the output named ``output``."""
        program = self.program
        groups = {
            name: [self._port(port) for port in getattr(program, name)]
            for name in ("inputs", "statistics", "parameters")
        }
        names = {port.name for port in program.inputs}
        name = POSITION if POSITION not in names else f"{POSITION}_of_the_step"
        self.position = self.build.value(Type((ONE,), "index", self.limit), name)
        for node in self.needs.nodes:
            self.build.place = node.place
            self._compute(node)
        result = self.parts[self.needs.result]
        return Program(
            name=program.name,
            phase=program.phase,
            sizes=program.sizes,
            types=self.build.types,
            names=self.build.names,
            nodes=tuple(self.build.nodes),
            inputs=(*groups["inputs"], Port(name, self.position)),
            targets=(),
            state=tuple(port for port, _ in self.state),
            statistics=tuple(groups["statistics"]),
            parameters=tuple(groups["parameters"]),
            outputs=(Port(output, result),),
            new_state=tuple(Port(port.name, value) for port, value in self.state),
            new_statistics=(),
            structural=program.structural,
        )

    def _compute(self, node: Node) -> None:
        """Append the nodes that compute the needed parts of all outputs of ``node``."""
        for number, value in enumerate(node.outputs):
            axes = sorted(self.needed_parts.get(value, ()), key=lambda axis: (axis is None, axis))
            for axis in axes:
                part = (value, axis)
                if part in self.parts:
                    continue
                if axis is None:
                    self.parts[part] = self._whole(node, value)
                    continue
                make = getattr(self, f"_{special_kind(node, axis) or 'row'}")
                self.parts[part] = make(node, number, axis)

    def _whole(self, node: Node, value: int) -> int:
        """Return the whole ``value`` in the new program. If the value depends on inputs with a time
        axis, this is its cache, which contains the steps so far."""
        if value in self.needs.moving:
            return self._cached(value)
        if node.op == "scan":
            raise NoRow(
                f"{self.needs.named(value)} is a scan over an axis that is not the time axis"
            )
        inputs = [self.parts[read, None] for read in node.inputs]
        return self.build.emit(node.op, *inputs, **self._attributes(node))

    def _row(self, node: Node, _: int, axis: int) -> int:
        inputs = [self.parts[part] for part in row_inputs(node, axis, self.types)]
        attributes = self._attributes(node)
        if "shape" in attributes:
            shape = attributes["shape"]
            attributes["shape"] = (*shape[:axis], ONE, *shape[axis + 1 :])
        return self.build.emit(node.op, *inputs, **attributes)

    def _cached(self, value: int) -> int:
        """Return the cache of a value after the row of the current step is written into the
        cache."""
        (axis,) = time_axes(self.types[value])
        before = self._state(self._with_limit(self.types[value]))
        emit = self.build.emit
        steps = emit("astype", emit("arange", stop=self.limit))
        is_current = emit("equal", steps, emit("astype", self.position))
        for _ in self.types[value].shape[axis + 1 :]:
            is_current = emit(
                "expand_dims", is_current, axis=len(self.build.types[is_current].shape)
            )
        cache = emit("where", is_current, self.parts[value, axis], before)
        self.state[-1] = (self.state[-1][0], cache)
        return cache

    def _arange(self, *_: object) -> int:
        return self.position

    def _table(self, node: Node, _: int, axis: int) -> int:
        """Return the row at the current position of a value that does not depend on the inputs,
        such as position embeddings. To select the row, each row is multiplied by 1 at the position
        and by 0 elsewhere, and the rows are added up."""
        emit, table = self.build.emit, self.parts[node.inputs[0], None]
        rank, rows = len(self.build.types[table].shape), self.build.types[table].shape[axis]
        steps = emit("astype", emit("arange", stop=rows))
        is_current = emit("astype", emit("equal", steps, emit("astype", self.position)))
        for _ in range(axis + 1, rank):
            is_current = emit(
                "expand_dims", is_current, axis=len(self.build.types[is_current].shape)
            )
        return emit("sum", emit("multiply", table, is_current), axis=(axis,), keepdims=True)

    def _window(self, node: Node, _: int, axis: int) -> int:
        """Compute the row of a sliding window from the cached last steps and the current step."""
        emit, attributes = self.build.emit, node.attributes
        row = self.parts[node.inputs[0], axis]
        size, dilation = Dim.of(attributes["size"][0]), Dim.of(attributes["dilation"][0])
        span = dilation * (size - 1)
        if span != Dim():
            type_ = self._with_limit(self.types[node.inputs[0]])
            shape = (*type_.shape[:axis], span, *type_.shape[axis + 1 :])
            before = self._state_from(self.build.zeros(shape), replace(type_, shape=shape))
            row = emit("concat", before, row, axis=axis)
            last = emit("slice", row, axis=axis, start=ONE, stop=span + 1)
            self.state[-1] = (self.state[-1][0], last)
        new_attributes = {"padding": (Dim(),), "after": (Dim(),), "length": (ONE,)}
        return emit("windows", row, **{**self._attributes(node), **new_attributes})

    def _scan(self, node: Node, number: int, _: int) -> int:
        """Run the body of a scan for one step; its carried values become states."""
        count, first_state = node.carries, len(self.state)
        starts = [self.parts[value, None] for value in node.inputs[:count]]
        carried = [self._state_from(start, self.build.types[start]) for start in starts]
        rows = [self.parts[value, 0] for value in node.inputs[count:]]
        last, stacked = self.build.scan(self._body(node.block, {}), carried, rows)
        for index, value in enumerate(last):
            self.state[first_state + index] = (self.state[first_state + index][0], value)
        for value, stack in zip(node.outputs[count:], stacked, strict=True):
            self.parts[value, 0] = stack
        return stacked[number - count]

    def _body(self, block: Block, outer_values: Mapping[int, int]) -> Block:
        """Copy the body of a loop. The copy has new value numbers, and ``limit`` in place of the
        time size. ``outer_values`` maps old numbers of values outside the body to new numbers."""
        new_values = dict(outer_values)

        def new(value: int) -> int:
            new_values[value] = self.build.value(self._with_limit(self.types[value]))
            return new_values[value]

        def old(value: int) -> int:
            return new_values[value] if value in new_values else self.parts[value, None]

        inputs = tuple(map(new, block.inputs))
        nodes = []
        for node in block.nodes:
            read = tuple(map(old, node.inputs))
            body = None if node.body is None else self._body(node.body, new_values)
            outputs = tuple(map(new, node.outputs))
            nodes.append(Node(node.op, read, outputs, self._attributes(node), body, node.place))
        return Block(inputs, tuple(nodes), tuple(map(old, block.outputs)))

    def _state(self, type_: Type) -> int:
        name = f"kept.{len(self.state)}"
        value = self.build.value(type_, name)
        self.state.append((Port(name, value), value))
        return value

    def _state_from(self, start: int, type_: Type) -> int:
        """Add a state with this type to the new program. Return the state's value before the step;
        at position 0, this value is ``start``."""
        emit, before = self.build.emit, self._state(type_)
        first = emit("equal", emit("astype", self.position), self.build.constant(0.0))
        return emit("where", first, start, before)

    def _port(self, port: Port) -> Port:
        """Return the new program's port (named input or output) for ``port`` of the original
        program. Its time axis has length 1."""
        type_, value = self.types[port.value], port.value
        if axes := time_axes(type_):
            (axis,) = axes
            shape = (*type_.shape[:axis], ONE, *type_.shape[axis + 1 :])
            new_value = self.build.value(replace(self._with_limit(type_), shape=shape), port.name)
            self.parts[value, axis] = new_value
        else:
            new_value = self.build.value(self._with_limit(type_), port.name)
            self.parts[value, None] = new_value
        return Port(port.name, new_value, port.init)

    def _with_limit(self, type_: Type) -> Type:
        bound = None if type_.bound is None else self._sizes(type_.bound)
        return replace(type_, shape=self._sizes(type_.shape), bound=bound)

    def _attributes(self, node: Node) -> dict[str, Any]:
        if node.op == "extent" and any("time" in Dim.of(d).names for d in node.attributes["dims"]):
            raise NoRow("the model reads the number of time steps")
        return {name: self._sizes(value) for name, value in node.attributes.items()}

    def _sizes(self, value: Any) -> Any:
        """Replace the time size by ``limit`` if ``value`` is a dimension or a tuple of dimensions;
        return other values unchanged."""
        if isinstance(value, Dim):
            return value.substitute({"time": self.limit})
        return tuple(map(self._sizes, value)) if isinstance(value, tuple) else value
