"""Run the nodes (operations) of a program as calls of a backend's primitives.

The interpreter first prepares the nodes for fixed sizes, so that later runs look nothing up. In a
small step, lookups would take a large part of the time. A compiler can trace a whole run.
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
from harness.program.ir import Node, reads
from harness.program.signature import call_key

Table = Mapping[str, Callable[..., Any]]
# The name of a backend's maximum that may ignore NaN. :mod:`harness.program.fused` says when the
# interpreter may use it.
LOOSE = "loose_max"
NOTHING: Attributes = MappingProxyType({})
NO_RESULT = "it returned None; expected a tensor"
Step = Callable[[Sequence[Any], Sequence[Any]], tuple[list[Any], list[Any]]]
Values = dict[int, Any]
# A prepared node: a function that adds the node's results to the values.
Line = Callable[[Values], None]
# A function that prepares a claimed call.
Claimed = Callable[[Node], Line]
# A function that gets every value as (number, value, time step or None). If it returns a value,
# that value replaces the computed one.
Watch = Callable[[int, Any, "int | None"], Any]


def resolved(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return an attribute of a node with numbers instead of symbolic sizes, e.g. 32 for ``batch``.
    This also applies to the entries of tuples."""
    if isinstance(value, Dim):
        return value.resolve(sizes)
    return tuple(resolved(item, sizes) for item in value) if isinstance(value, tuple) else value


class Loop(Protocol):
    """A backend's way to run a scan (a loop over time). The default is :func:`loop`."""

    def __call__(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool, /
    ) -> tuple[list[Any], list[Any]]:
        """Run the loop; return the carried values (e.g. a state) after the last step, and the
        outputs of all steps. The arguments are those of :meth:`.Backend.scan`.

        The outputs are stacked on a new first axis, in time order.
        """


@dataclass
class Interpreter:
    """The settings for running the nodes (operations) of a program.

    - ``table`` maps the name of a primitive to its function, and ``sizes`` the name of a size to
      its number.
    - ``scalar`` turns a number into a tensor. Primitives that convert to floats get ``dtype``.
    - ``scan`` runs loops; None means the Python loop :func:`loop`.
    - ``claimed`` maps the name of a layer or loss that the framework itself runs to the function
      that prepares its calls.
    - ``watch`` is called with every value that a node computes.
    - ``anew`` makes each run create its constants again, because a compiler's trace cannot use the
      constants of another trace. Otherwise they are created once.
    - ``deletes`` makes each run delete a value after its last use, to save memory.
    """

    table: Table
    sizes: Mapping[str, int]
    dtype: str
    scalar: Callable[[float], Any]
    scan: Loop | None = None
    claimed: Mapping[str, Claimed] = field(default_factory=dict)
    watch: Watch | None = None
    anew: bool = False
    deletes: bool = False
    _time: int | None = None
    _loose: set[int] = field(default_factory=set, init=False)

    def run(self, nodes: Iterable[Node], values: Values) -> Values:
        """Run nodes once. ``values`` maps the number of a value to its tensor; the results are
        added to it."""
        return self.prepared(nodes).run(values)

    def prepared(self, nodes: Iterable[Node], ends: Iterable[int] | None = None) -> PreparedNodes:
        """Return the nodes prepared for many runs. ``ends`` are the numbers of the values that the
        caller reads; None means all values."""
        nodes = tuple(nodes)
        if ends is not None:
            ends = frozenset(ends)
            self._loosen(nodes, ends)
        entries = [entry for node in nodes for entry in self._lines(node)]
        if ends is not None and self.deletes:
            entries = _with_deletions(entries, ends)
        return PreparedNodes(entries, self)

    def _loosen(self, nodes: Sequence[Node], ends: Iterable[int]) -> None:
        if LOOSE in self.table and self.watch is None:
            self._loose |= loose_maxima(nodes, ends)

    def attributes(self, node: Node) -> dict[str, Any]:
        """Return a dictionary of a node's attributes, to pass to a primitive, with numbers instead
        of symbolic sizes."""
        numbers = {name: resolved(value, self.sizes) for name, value in node.attributes.items()}
        if node.op in ("astype", "one_hot"):
            numbers["dtype"] = self.dtype
        return numbers

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
        def watched(values: Values) -> None:
            line(values)
            assert self.watch is not None
            for output in node.outputs:
                other = self.watch(output, values[output], self._time)
                if other is not None:
                    values[output] = other

        return watched

    def _number(self, node: Node, number: float) -> Line:
        output, scalar = node.output, self.scalar
        if not self.anew:
            constant = scalar(number)
            return lambda values: values.__setitem__(output, constant)
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

            inputs = [values[i] for i in node.inputs]
            last, stacked = scan(step, inputs[:count], inputs[count:], reverse)
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
    """Nodes (operations) that an interpreter has prepared for fixed sizes, so that they run
    faster."""

    def __init__(self, lines: Sequence[tuple[Line, Node]], interpreter: Interpreter) -> None:
        self._lines = [line for line, _ in lines]
        self._nodes, self._interpreter = dict(lines), interpreter

    def run(self, values: Values) -> Values:
        """Run the nodes, and add their results to ``values`` (value number -> tensor). An error
        names the primitive that raised it."""
        try:
            for line in self._lines:
                line(values)
        except Exception as error:
            node = self._nodes[line]
            empty = self._node_without_result(node, values)
            if empty is not None:
                missing = TypeError(NO_RESULT)
                self._blame(missing, empty, values)
                raise missing from error
            if node.op not in ("call", "scan"):
                self._blame(error, node, values)
            raise
        return values

    def _node_without_result(self, node: Node, values: Values) -> Node | None:
        """Return the earlier node that computed None, i.e. no result, for an input of ``node``;
        return None if all inputs have values. The error about ``node`` then names the earlier node.
        """
        nothing = {i for i in node.inputs if i in values and values[i] is None}
        return next((n for n in self._nodes.values() if nothing.intersection(n.outputs)), None)

    def _blame(self, error: Exception, node: Node, values: Values) -> None:
        inputs = [values.get(i) for i in node.inputs]
        blame(error, call_text(node.op, inputs, self._interpreter.attributes(node)))


def _with_deletions(
    entries: Sequence[tuple[Line, Node]], ends: frozenset[int]
) -> list[tuple[Line, Node]]:
    """Return prepared nodes that delete each computed value after its last use, except the values
    ``ends``."""
    computed = {output for _, node in entries for output in node.outputs}
    used_later, result = set(ends), list[tuple[Line, Node]]()
    for line, node in reversed(entries):
        dead = tuple(computed.intersection((*node.outputs, *reads(node))) - used_later)
        used_later.update(dead)
        result.append((_deleting(line, node.outputs, dead) if dead else line, node))
    return result[::-1]


def _deleting(line: Line, outputs: Sequence[int], dead: Sequence[int]) -> Line:
    """Return a prepared node that also deletes the values ``dead``."""

    def run(values: Values) -> None:
        line(values)
        # The error about a node without a result names the node's inputs.
        if not any(values[output] is None for output in outputs):
            for value in dead:
                del values[value]

    return run


def _operation(node: Node, function: Callable[..., Any], attributes: Attributes) -> Line:
    """Return a function that calls a primitive on the values of a run, and stores the result. There
    are faster versions for one and two inputs."""
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
    """Run a loop over time (scan) as a Python loop over the first axis, with primitives that slice
    and concatenate. The arguments and results are those of :meth:`.Backend.scan`.

    ``tell`` is called with the number of each time step before the step runs.
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
    """Stack tensors of equal shape on a new first axis, using only the primitives in ``table``."""
    rows = [perform(table, "expand_dims", [tensor], {"axis": 0}) for tensor in tensors]
    return perform(table, "concat", rows, {"axis": 0})


def perform(table: Table, op: str, inputs: Sequence[Any], attributes: Attributes = NOTHING) -> Any:
    """Return the result of the primitive ``op``. If the primitive raises an error, the call is
    added to its message.

    Raises:
        TypeError: the primitive returned None. Errors of the primitive itself pass through.
    """
    try:
        arguments = [inputs] if op == "concat" else inputs
        result = table[op](*arguments, **attributes)
        if result is None:
            raise TypeError(NO_RESULT)
    except Exception as error:
        blame(error, call_text(op, inputs, attributes))
        raise
    return result


def call_text(op: str, inputs: Sequence[Any], attributes: Attributes) -> str:
    """Return the text of a primitive's call, for messages.

    An example is ``slice([3, 4], axis=0, start=0, stop=1)``, where ``[3, 4]`` is a tensor's shape.
    """
    named = [f"{name}={value!r}" for name, value in attributes.items()]
    return f"{op}({', '.join([*map(_tensor_text, inputs), *named])})"


def _tensor_text(tensor: Any) -> str:
    try:
        return str([int(n) for n in tensor.shape])
    except Exception:  # the value may be any object
        return type(tensor).__name__


# The most entries in a cache of prepared nodes: all functions of a session, at several sizes each.
MOST_CACHED = 64


class NodeCache:
    """A cache of prepared nodes (operations of a program at fixed sizes).

    The key identifies the nodes and the sizes. Each run creates its constants again, because a
    compiler may trace the run.
    """

    def __init__(self) -> None:
        self._prepared: dict[Hashable, PreparedNodes] = {}

    def get(
        self,
        key: Hashable,
        prepare: Callable[[], tuple[Interpreter, Iterable[Node]]],
        ends: Iterable[int] | None = None,
    ) -> PreparedNodes:
        """Return the prepared nodes that are cached under ``key``.

        If the key is new, ``prepare`` is called; it returns an interpreter and the nodes to
        prepare. ``ends`` are the numbers of the values that the caller reads; None means all
        values.
        """
        if key not in self._prepared:
            if len(self._prepared) == MOST_CACHED:
                self._prepared.clear()
            interpreter, nodes = prepare()
            self._prepared[key] = replace(interpreter, anew=True).prepared(nodes, ends)
        return self._prepared[key]


def with_loose(table: Table, fused: Table) -> Table:
    """Return ``table``, the primitives of a backend. If ``fused``, its further operations, has a
    maximum that may ignore NaN (:data:`LOOSE`), the result contains it too."""
    return {**table, LOOSE: fused[LOOSE]} if LOOSE in fused else table


def loose_max(table: Table) -> Callable[..., Any]:
    """Return a function ``max``. If it reduces the last axis, it uses the backend's faster maximum,
    which may ignore NaN; otherwise it uses the normal primitive."""

    def run(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        op = LOOSE if axis == (len(x.shape) - 1,) else "max"
        return table[op](x, axis=axis, keepdims=keepdims)

    return run
