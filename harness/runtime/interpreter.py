"""The interpreter: nodes of a program as a list of calls into a backend's table of primitives.

Nodes are prepared for a set of sizes, so that a run looks nothing up: that is the harness's own
share of a small step. Compilers trace such a run whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from harness.errors import blame
from harness.program.dims import Attributes, Dim
from harness.program.fused import loose_maxima
from harness.program.ir import Node
from harness.program.signature import call_key

Table = Mapping[str, Callable[..., Any]]
# The maximum of a backend that may leave NaN out, where :mod:`harness.program.fused` allows it.
LOOSE = "loose_max"
NOTHING: Attributes = MappingProxyType({})
NOTHING_MADE = "it returned None; a tensor is wanted"
Step = Callable[[Sequence[Any], Sequence[Any]], tuple[list[Any], list[Any]]]
Values = dict[int, Any]
# Adds what a node makes to the values.
Line = Callable[[Values], None]
# Makes the line of a call that a backend has claimed.
Claimed = Callable[[Node], Line]
# Is shown every value that is made: (number, value, time step or None). What it returns, if not
# None, takes the value's place.
Watch = Callable[[int, Any, "int | None"], Any]


class Loop(Protocol):
    """How a backend runs a scan; :func:`loop` is the plain one."""

    def __call__(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool, /
    ) -> tuple[list[Any], list[Any]]:
        """(last carried values, values stacked on a new first axis, in the order of time)."""


@dataclass
class Interpreter:
    """Everything that a run needs beside the nodes.

    ``scalar`` makes a constant of the run's dtype; ``dtype`` is handed to the primitives that
    make floats of something else; ``claimed`` runs the calls that a backend has claimed, by key.
    Constants are made once, or in each run ``anew``, as a compiler that traces runs may want: what
    belongs to one trace is nothing to the next.
    """

    table: Table
    sizes: Mapping[str, int]
    dtype: str
    scalar: Callable[[float], Any]
    scan: Loop | None = None
    claimed: Mapping[str, Claimed] = field(default_factory=dict)
    watch: Watch | None = None
    anew: bool = False
    _time: int | None = None
    _loose: set[int] = field(default_factory=set, init=False)

    def run(self, nodes: Iterable[Node], values: Values) -> Values:
        """Run nodes once; ``values`` maps value numbers to tensors, and is added to."""
        return self.prepared(nodes).run(values)

    def prepared(self, nodes: Iterable[Node], ends: Iterable[int] | None = None) -> PreparedNodes:
        """Nodes made ready for many runs. Only ``ends`` of what they make are read, if given."""
        nodes = tuple(nodes)
        if ends is not None:
            self._loosen(nodes, ends)
        return PreparedNodes([entry for node in nodes for entry in self._lines(node)], self)

    def _loosen(self, nodes: Sequence[Node], ends: Iterable[int]) -> None:
        if LOOSE in self.table and self.watch is None:
            self._loose |= loose_maxima(nodes, ends)

    def attributes(self, node: Node) -> dict[str, Any]:
        """A node's attributes in numbers, as the table's functions take them."""
        resolved = {name: self._resolve(value) for name, value in node.attributes.items()}
        if node.op in ("astype", "one_hot"):
            resolved["dtype"] = self.dtype
        return resolved

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, Dim):
            return value.resolve(self.sizes)
        if isinstance(value, tuple):
            return tuple(self._resolve(item) for item in value)
        return value

    def _lines(self, node: Node) -> Iterator[tuple[Line, Node]]:
        if node.op == "call" and call_key(node) not in self.claimed:
            self._loosen(node.block.nodes, node.block.outputs)
            for inner in node.block.nodes:
                yield from self._lines(inner)
        else:
            line = self._line(node)
            yield (line if self.watch is None else self._watched(line, node)), node

    def _line(self, node: Node) -> Line:
        if node.op == "call":
            return self.claimed[call_key(node)](node)
        if node.op == "scan":
            return self._scan(node)
        if node.op == "constant":
            return self._number(node, node.attributes["value"])
        if node.op == "extent":
            counts = [dim.resolve(self.sizes) for dim in node.attributes["dims"]]
            return self._number(node, float(np.prod(counts, dtype=np.int64)))
        loose = self._loose.intersection(node.outputs)
        function = loose_max(self.table) if loose else self.table[node.op]
        return _operation(node, function, self.attributes(node))

    def _watched(self, line: Line, node: Node) -> Line:
        def shown(values: Values) -> None:
            line(values)
            assert self.watch is not None
            for output in node.outputs:
                other = self.watch(output, values[output], self._time)
                if other is not None:
                    values[output] = other

        return shown

    def _number(self, node: Node, number: float) -> Line:
        output, scalar = node.output, self.scalar
        if not self.anew:
            made = scalar(number)
            return lambda values: values.__setitem__(output, made)
        return lambda values: values.__setitem__(output, scalar(number))

    def _scan(self, node: Node) -> Line:
        body, count, reverse = node.block, node.carries, node.reverse
        script, scan = self.prepared(body.nodes, body.outputs), self.scan or self._loop
        names, ends = body.inputs, body.outputs

        def line(values: Values) -> None:
            def step(carries: Sequence[Any], slices: Sequence[Any]) -> tuple[list[Any], list[Any]]:
                inner = dict(values)
                inner.update(zip(names, (*carries, *slices), strict=True))
                script.run(inner)
                results = [inner[o] for o in ends]
                return results[:count], results[count:]

            given = [values[i] for i in node.inputs]
            last, stacked = scan(step, given[:count], given[count:], reverse)
            values.update(zip(node.outputs, (*last, *stacked), strict=True))

        return line

    def _loop(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        def timed(time: int) -> None:
            self._time = time

        result = loop(self.table, step, carries, sequences, reverse, timed)
        self._time = None
        return result


class PreparedNodes:
    """Nodes that an interpreter has prepared."""

    def __init__(self, lines: Sequence[tuple[Line, Node]], interpreter: Interpreter) -> None:
        self._lines = [line for line, _ in lines]
        self._nodes, self._interpreter = dict(lines), interpreter

    def run(self, values: Values) -> Values:
        """Add every value that the nodes make. An error of a primitive says which one it was."""
        try:
            for line in self._lines:
                line(values)
        except Exception as error:
            node = self._nodes[line]
            empty = self._empty(node, values)
            if empty is not None:
                missing = TypeError(NOTHING_MADE)
                self._blame(missing, empty, values)
                raise missing from error
            if node.op not in ("call", "scan"):
                self._blame(error, node, values)
            raise
        return values

    def _empty(self, node: Node, values: Values) -> Node | None:
        """The node that made nothing where ``node`` wants a value: looked for once it failed."""
        nothing = {i for i in node.inputs if i in values and values[i] is None}
        return next((n for n in self._nodes.values() if nothing.intersection(n.outputs)), None)

    def _blame(self, error: Exception, node: Node, values: Values) -> None:
        inputs = [values.get(i) for i in node.inputs]
        blame(error, call_text(node.op, inputs, self._interpreter.attributes(node)))


def _operation(node: Node, function: Callable[..., Any], attributes: Attributes) -> Line:
    """The line of a primitive, by how many inputs it has: a small step is a few hundred lines."""
    inputs, output = node.inputs, node.output
    first, second = (*inputs, -1, -1)[:2]

    def join(values: Values) -> None:
        values[output] = function([values[i] for i in inputs], **attributes)

    def one(values: Values) -> None:
        values[output] = function(values[first], **attributes)

    def two(values: Values) -> None:
        values[output] = function(values[first], values[second])

    def several(values: Values) -> None:
        values[output] = function(*[values[i] for i in inputs], **attributes)

    if node.op == "concat":
        return join
    if len(inputs) == 1:
        return one
    return two if len(inputs) == 2 and not attributes else several


def loop(
    table: Table,
    step: Step,
    carries: Sequence[Any],
    sequences: Sequence[Any],
    reverse: bool,
    tell: Callable[[int], None] | None = None,
) -> tuple[list[Any], list[Any]]:
    """A scan as a plain loop over the first axis, from slices and concatenation.

    ``tell`` is called with each time step before it runs.
    """
    length = int(sequences[0].shape[0])
    steps = range(length - 1, -1, -1) if reverse else range(length)
    rows: list[list[Any]] = []
    for time in steps:
        if tell is not None:
            tell(time)
        slices = [_row(table, sequence, time) for sequence in sequences]
        carries, outputs = step(carries, slices)
        rows.append(outputs)
    if reverse:
        rows.reverse()
    stacked = [stack(table, column) for column in zip(*rows, strict=True)]
    return list(carries), stacked


def _row(table: Table, sequence: Any, time: int) -> Any:
    row = perform(table, "slice", [sequence], {"axis": 0, "start": time, "stop": time + 1})
    return perform(table, "squeeze", [row], {"axis": 0})


def stack(table: Table, tensors: Sequence[Any]) -> Any:
    """Tensors of one shape on a new first axis, from primitives."""
    rows = [perform(table, "expand_dims", [tensor], {"axis": 0}) for tensor in tensors]
    return perform(table, "concat", rows, {"axis": 0})


def perform(table: Table, op: str, inputs: Sequence[Any], attributes: Attributes = NOTHING) -> Any:
    """The result of a primitive. An error that it raises says which one it was.

    Raises:
        TypeError: it made nothing; or whatever the primitive itself raises.
    """
    try:
        given = [inputs] if op == "concat" else inputs
        made = table[op](*given, **attributes)
        if made is None:
            raise TypeError(NOTHING_MADE)
    except Exception as error:
        blame(error, call_text(op, inputs, attributes))
        raise
    return made


def call_text(op: str, inputs: Sequence[Any], attributes: Attributes) -> str:
    """A call of a primitive for a message: ``slice([3, 4], axis=0, start=0, stop=1)``."""
    named = [f"{name}={value!r}" for name, value in attributes.items()]
    return f"{op}({', '.join([*map(_tensor_text, inputs), *named])})"


def _tensor_text(tensor: Any) -> str:
    try:
        return str([int(n) for n in tensor.shape])
    except Exception:  # it is shown in a message about what is wrong: it may be anything at all
        return type(tensor).__name__


# Nodes that are run again and again at the same sizes, made ready once.

# What is kept of a session: all of its functions, at several sizes each.
MOST_KEPT = 64


class KeptNodes:
    """Prepared nodes by a key, which says what they are and at which sizes.

    A compiler may trace a run of them: their constants are made in each run anew.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, PreparedNodes] = {}

    def get(
        self,
        key: Hashable,
        made: Callable[[], tuple[Interpreter, Iterable[Node]]],
        ends: Iterable[int] | None = None,
    ) -> PreparedNodes:
        """What was prepared for a key, or is now: nodes, and what runs them. Of what they make,
        only ``ends`` are looked at, if given."""
        if key not in self._kept:
            if len(self._kept) == MOST_KEPT:
                self._kept.clear()
            interpreter, nodes = made()
            self._kept[key] = replace(interpreter, anew=True).prepared(nodes, ends)
        return self._kept[key]


def with_loose(table: Table, fused: Table) -> Table:
    """A table of primitives, with that maximum among a backend's fused operations, if it is."""
    return {**table, LOOSE: fused[LOOSE]} if LOOSE in fused else table


def loose_max(table: Table) -> Callable[..., Any]:
    """``max`` that may leave NaN out where it is over the last axis."""

    def run(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        op = LOOSE if axis == (len(x.shape) - 1,) else "max"
        return table[op](x, axis=axis, keepdims=keepdims)

    return run
