"""Conversion of a sequence model to a program that computes one step, e.g. to generate text.

Values with a time axis are computed for the current step only; the result is called a *row*. If a
row depends on all earlier steps of a value, the value is cached: it becomes a state of ``limit``
steps, into which each step writes its row. For example, attention caches keys and values. A window
over the last steps caches these steps, and a scan keeps its carried values. A step therefore
recomputes nothing of earlier steps.

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
Form = tuple[int, int | None]


class NoRow(Exception):
    """A step cannot be computed separately; the message names the value and the reason."""


def row_inputs(node: Node, axis: int, types: Mapping[int, Type]) -> list[Form]:
    """Return what a node needs of each operand to compute one entry along an axis of its output:
    one entry along an axis, or the whole operand.

    Raises:
        NoRow: the node cannot compute a single entry from such parts of its operands.
    """
    shapes = [types[value].shape for value in node.inputs]
    if node.op in _ALIGNED:
        axes = _aligned(shapes, types[node.output].shape, axis)
    elif node.op in _AXES and (found := _AXES[node.op](node, shapes, axis)) is not None:
        axes = found
    else:
        raise NoRow(f"{node.op} cannot be computed for one time step alone")
    return list(zip(node.inputs, axes, strict=True))


_ALIGNED = ELEMENTWISE | {"astype", "stop_gradient", "broadcast_to"}
Axes = Sequence[int | None]


def _aligned(shapes: Sequence[Shape], made: Shape, axis: int) -> Axes:
    """Return for each operand of an elementwise node the axis that corresponds to ``axis`` of the
    result, or None if the operand lacks this axis or has length 1 there."""
    found: list[int | None] = []
    for shape in shapes:
        own = axis - (len(made) - len(shape))
        found.append(own if own >= 0 and shape[own] == made[axis] else None)
    return found


def _reshape(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """Return the operand's axis that becomes ``axis`` in a reshape; None if the reshape splits or
    merges this axis."""
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


def _along_another(node: Node, shapes: Sequence[Shape], axis: int) -> Axes | None:
    """Return ``axis`` for each operand of a node that works along one of its axes (e.g. ``flip``);
    None if the node works along ``axis`` itself."""
    own = node.attributes.get("axis", len(shapes[0]) - 1)
    return None if axis == own else [axis] * len(shapes)


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
    "sum": _reduced,
    "max": _reduced,
    "matmul": _matmul,
    "take": lambda _, shapes, axis: [None, axis] if axis < len(shapes[1]) else None,
    "one_hot": lambda _, shapes, axis: [axis] if axis < len(shapes[0]) else None,
    "windows": _windows,
    **dict.fromkeys(
        ("concat", "slice", "flip", "cumulative_sum", "argsort", "take_along_axis"), _along_another
    ),
}


# The values on which one step of the output depends, and the needed part of each value.

TIME = Dim.of("time")


def times(type_: Type) -> list[int]:
    """Return the numbers of a type's axes that have the dimension ``time``."""
    return [axis for axis, dim in enumerate(type_.shape) if dim == TIME]


def special(node: Node, axis: int) -> str:
    """Return the kind of a node that needs special code to compute a row, e.g. "window"; return ""
    if the same operation on the operands' rows computes the row."""
    if node.op == "slice" and node.attributes["axis"] == axis:
        return "table"
    if node.op == "windows" and axis in node.attributes["axes"]:
        return "window"
    return node.op if node.op in ("arange", "scan") else ""


class Demands:
    """The values that are needed to compute one step of the output ``value``.

    ``nodes`` are the needed nodes. ``moving`` are the values that depend on inputs with a time
    axis. ``asked`` has the needed parts of each value: the time axis if a row is needed, and None
    if the whole value is needed.

    Raises:
        NoRow: a step cannot be computed separately.
    """

    def __init__(self, program: Program, value: int) -> None:
        self.program, self.types = program, program.types
        self.nodes = needed_nodes(inline_calls(program.nodes), [value])
        self.moving = {p.value for p in program.inputs if times(self.types[p.value])}
        for node in self.nodes:
            if not self.moving.isdisjoint(reads(node)):
                self.moving.update(node.outputs)
        self.asked: dict[int, set[int | None]] = {}
        self.wanted: Form = (value, self._only(value))
        self._ask(self.wanted)
        for node in reversed(self.nodes):
            for number, output in enumerate(node.outputs):
                for axis in tuple(self.asked.get(output, ())):
                    for form in self._needs(node, number, axis):
                        self._ask(form)

    def named(self, value: int) -> str:
        """Return the name of a value, or a description of its type, for a message."""
        return self.program.names.get(value, f"a value {self.types[value]}")

    def _only(self, value: int) -> int:
        """Return the time axis of a value; raise :class:`NoRow` if it has none or several."""
        found, shape = times(self.types[value]), self.types[value].shape
        if len(found) != 1 or sum("time" in dim.names for dim in shape) != 1:
            raise NoRow(f"{self.named(value)} does not have exactly one time axis")
        return found[0]

    def _ask(self, form: Form) -> None:
        value, axis = form
        forms = self.asked.setdefault(value, set())
        forms.add(axis)
        if axis is None and value in self.moving:
            forms.add(self._only(value))
            if self.types[value].kind != "float" or any(
                port.value == value for port in self.program.inputs
            ):
                raise NoRow(f"{self.named(value)} is read at all time steps at once")

    def _needs(self, node: Node, number: int, axis: int | None) -> Iterable[Form]:
        if axis is None:
            kept = node.outputs[number] in self.moving
            return [] if kept else [(value, None) for value in reads(node)]
        kind = special(node, axis)
        if kind == "arange":
            return []
        if not kind:
            return row_inputs(node, axis, self.types)
        if kind == "scan":
            return self._of_scan(node, number, axis)
        return self._of_table(node) if kind == "table" else self._of_window(node, axis)

    def _of_table(self, node: Node) -> Iterable[Form]:
        if node.inputs[0] in self.moving or Dim.of(node.attributes["start"]) != Dim():
            raise NoRow(f"{self.named(node.output)} is a slice of time steps")
        return [(node.inputs[0], None)]

    def _of_window(self, node: Node, axis: int) -> Iterable[Form]:
        given = node.attributes
        span = Dim.of(given["dilation"][0]) * (Dim.of(given["size"][0]) - 1)
        found = [Dim.of(given[name][0]) for name in ("stride", "padding", "after")]
        if len(given["axes"]) > 1 or given["lowest"] or found != [ONE, span, Dim()]:
            raise NoRow(
                f"{self.named(node.output)} has windows that do not end at the current step"
            )
        return [(node.inputs[0], axis)]

    def _of_scan(self, node: Node, number: int, axis: int) -> Iterable[Form]:
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
        whole = [(value, None) for value in (*carried, *free_values(node.block))]
        return [*whole, *((value, 0) for value in node.inputs[node.carries :])]


POSITION = "position"


def incremental(program: Program, output: str, limit: int) -> Program:
    """Return the program that computes one step of a program's output ``output``.

    Its inputs have one step, and it has an additional input ``position``: the number of the step
    from 0, below ``limit``. Its state holds the cached values; at position 0 these are not used.
    The given program must have no state.

    Raises:
        NoRow: a step cannot be computed separately; the message says why.
    """
    if program.state:
        raise NoRow("the model has a state")
    (wanted,) = (port.value for port in program.outputs if port.name == output)
    return _StepBuilder(Demands(program, wanted), Dim(limit)).made(output)


@dataclass
class _StepBuilder:
    demands: Demands
    limit: Dim
    build: Builder = field(default_factory=Builder)
    forms: dict[Form, int] = field(default_factory=dict)
    state: list[tuple[Port, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = self.demands.program
        self.types, self.asked = self.program.types, self.demands.asked

    def made(self, output: str) -> Program:
        """Build and return the program of one step."""
        program = self.program
        groups = {
            name: [self._port(port) for port in getattr(program, name)]
            for name in ("inputs", "statistics", "parameters")
        }
        names = {port.name for port in program.inputs}
        name = POSITION if POSITION not in names else f"{POSITION}_of_the_step"
        self.position = self.build.value(Type((ONE,), "index", self.limit), name)
        for node in self.demands.nodes:
            self.build.place = node.place
            self._make(node)
        result = self.forms[self.demands.wanted]
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

    def _make(self, node: Node) -> None:
        for number, value in enumerate(node.outputs):
            axes = sorted(self.asked.get(value, ()), key=lambda axis: (axis is None, axis))
            for axis in axes:
                form = (value, axis)
                if form in self.forms:
                    continue
                if axis is None:
                    self.forms[form] = self._whole(node, value)
                    continue
                make = getattr(self, f"_{special(node, axis) or 'row'}")
                self.forms[form] = make(node, number, axis)

    def _whole(self, node: Node, value: int) -> int:
        """Return the whole value; if it depends on inputs with a time axis, return the cache with
        its steps so far."""
        if value in self.demands.moving:
            return self._kept(value)
        if node.op == "scan":
            raise NoRow(
                f"{self.demands.named(value)} is a scan over an axis that is not the time axis"
            )
        inputs = [self.forms[read, None] for read in node.inputs]
        return self.build.emit(node.op, *inputs, **self._attributes(node))

    def _row(self, node: Node, _: int, axis: int) -> int:
        inputs = [self.forms[form] for form in row_inputs(node, axis, self.types)]
        attributes = self._attributes(node)
        if "shape" in attributes:
            shape = attributes["shape"]
            attributes["shape"] = (*shape[:axis], ONE, *shape[axis + 1 :])
        return self.build.emit(node.op, *inputs, **attributes)

    def _kept(self, value: int) -> int:
        """Return the cache of a value, with the row of the current step written into it."""
        (axis,) = times(self.types[value])
        before = self._state(self._sized(self.types[value]))
        emit = self.build.emit
        steps = emit("astype", emit("arange", stop=self.limit))
        here = emit("equal", steps, emit("astype", self.position))
        for _ in self.types[value].shape[axis + 1 :]:
            here = emit("expand_dims", here, axis=len(self.build.types[here].shape))
        made = emit("where", here, self.forms[value, axis], before)
        self.state[-1] = (self.state[-1][0], made)
        return made

    def _arange(self, *_: object) -> int:
        return self.position

    def _table(self, node: Node, _: int, axis: int) -> int:
        """Return the row of a table at the current position. It is computed as the sum over all
        rows, multiplied by 1 at the position and by 0 elsewhere."""
        emit, table = self.build.emit, self.forms[node.inputs[0], None]
        rank, rows = len(self.build.types[table].shape), self.build.types[table].shape[axis]
        steps = emit("astype", emit("arange", stop=rows))
        here = emit("astype", emit("equal", steps, emit("astype", self.position)))
        for _ in range(axis + 1, rank):
            here = emit("expand_dims", here, axis=len(self.build.types[here].shape))
        return emit("sum", emit("multiply", table, here), axis=(axis,), keepdims=True)

    def _window(self, node: Node, _: int, axis: int) -> int:
        emit, given = self.build.emit, node.attributes
        row = self.forms[node.inputs[0], axis]
        size, dilation = Dim.of(given["size"][0]), Dim.of(given["dilation"][0])
        span = dilation * (size - 1)
        if span != Dim():
            type_ = self._sized(self.types[node.inputs[0]])
            shape = (*type_.shape[:axis], span, *type_.shape[axis + 1 :])
            before = self._started(self.build.zeros(shape), replace(type_, shape=shape))
            row = emit("concat", before, row, axis=axis)
            last = emit("slice", row, axis=axis, start=ONE, stop=span + 1)
            self.state[-1] = (self.state[-1][0], last)
        changed = {"padding": (Dim(),), "after": (Dim(),), "length": (ONE,)}
        return emit("windows", row, **{**self._attributes(node), **changed})

    def _scan(self, node: Node, number: int, _: int) -> int:
        count, kept = node.carries, len(self.state)
        starts = [self.forms[value, None] for value in node.inputs[:count]]
        carried = [self._started(start, self.build.types[start]) for start in starts]
        rows = [self.forms[value, 0] for value in node.inputs[count:]]
        last, stacked = self.build.scan(self._body(node.block, {}), carried, rows)
        for place, value in enumerate(last):
            self.state[kept + place] = (self.state[kept + place][0], value)
        for value, found in zip(node.outputs[count:], stacked, strict=True):
            self.forms[value, 0] = found
        return stacked[number - count]

    def _body(self, block: Block, around: Mapping[int, int]) -> Block:
        """Copy the body of a loop, with new values and with ``limit`` instead of the time size.
        ``around`` maps outer values to the new values."""
        at = dict(around)

        def new(value: int) -> int:
            at[value] = self.build.value(self._sized(self.types[value]))
            return at[value]

        def old(value: int) -> int:
            return at[value] if value in at else self.forms[value, None]

        inputs = tuple(map(new, block.inputs))
        nodes = []
        for node in block.nodes:
            read = tuple(map(old, node.inputs))
            body = None if node.body is None else self._body(node.body, at)
            outputs = tuple(map(new, node.outputs))
            nodes.append(Node(node.op, read, outputs, self._attributes(node), body, node.place))
        return Block(inputs, tuple(nodes), tuple(map(old, block.outputs)))

    def _state(self, type_: Type) -> int:
        name = f"kept.{len(self.state)}"
        made = self.build.value(type_, name)
        self.state.append((Port(name, made), made))
        return made

    def _started(self, start: int, type_: Type) -> int:
        """Add a state to the program; return its value before the step, which is ``start`` at
        position 0."""
        emit, before = self.build.emit, self._state(type_)
        first = emit("equal", emit("astype", self.position), self.build.constant(0.0))
        return emit("where", first, start, before)

    def _port(self, port: Port) -> Port:
        """Return the port in the program of one step that replaces ``port``; its time axis has
        length 1."""
        type_, value = self.types[port.value], port.value
        if axes := times(type_):
            (axis,) = axes
            shape = (*type_.shape[:axis], ONE, *type_.shape[axis + 1 :])
            made = self.build.value(replace(self._sized(type_), shape=shape), port.name)
            self.forms[value, axis] = made
        else:
            made = self.build.value(self._sized(type_), port.name)
            self.forms[value, None] = made
        return Port(port.name, made, port.init)

    def _sized(self, type_: Type) -> Type:
        bound = None if type_.bound is None else self._sizes(type_.bound)
        return replace(type_, shape=self._sizes(type_.shape), bound=bound)

    def _attributes(self, node: Node) -> dict[str, Any]:
        if node.op == "extent" and any("time" in Dim.of(d).names for d in node.attributes["dims"]):
            raise NoRow("the model reads the number of time steps")
        return {name: self._sizes(value) for name, value in node.attributes.items()}

    def _sizes(self, value: Any) -> Any:
        """Replace the time size by ``limit`` in a dimension or in a tuple of dimensions."""
        if isinstance(value, Dim):
            return value.substitute({"time": self.limit})
        return tuple(map(self._sizes, value)) if isinstance(value, tuple) else value
