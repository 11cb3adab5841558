"""The walk: runs the nodes of a program over a backend's table of primitives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from harness.errors import blame
from harness.program.dims import Dim
from harness.program.ir import Block, Node

Table = Mapping[str, Callable[..., Any]]
NOTHING: Mapping[str, Any] = MappingProxyType({})
Step = Callable[[Sequence[Any], Sequence[Any]], tuple[list[Any], list[Any]]]
# Runs one call its own way: (node, values by number) -> outputs.
Kernel = Callable[[Node, Mapping[int, Any]], Sequence[Any]]
# Is shown every value that is made: (number, value, time step or None).
Watch = Callable[[int, Any, "int | None"], None]


class Loop(Protocol):
    """How a backend runs a scan; :func:`loop` is the plain one."""

    def __call__(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool, /
    ) -> tuple[list[Any], list[Any]]:
        """(last carried values, values stacked on a new first axis, in the order of time)."""


@dataclass
class Walker:
    """Everything a walk needs beside the nodes.

    ``scalar`` makes a constant of the run's dtype; ``dtype`` is handed to the primitives that
    make floats of something else; ``kernels`` run the calls that a backend has claimed.
    """

    table: Table
    sizes: Mapping[str, int]
    dtype: str
    scalar: Callable[[float], Any]
    scan: Loop | None = None
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    watch: Watch | None = None
    _time: int | None = None

    def run(self, nodes: Iterable[Node], env: dict[int, Any]) -> dict[int, Any]:
        """Run nodes in order; ``env`` maps value numbers to tensors, and is added to."""
        for node in nodes:
            self._node(node, env)
            # A call that was walked has shown its results already, as those of its body.
            if self.watch is not None and (node.op != "call" or self._kernel(node)):
                for output in node.outputs:
                    self.watch(output, env[output], self._time)
        return env

    def _node(self, node: Node, env: dict[int, Any]) -> None:
        if node.op == "call":
            self._call(node, env)
        elif node.op == "scan":
            self._scan(node, env)
        elif node.op == "constant":
            env[node.output] = self.scalar(node.attributes["value"])
        elif node.op == "extent":
            counts = [dim.resolve(self.sizes) for dim in node.attributes["dims"]]
            env[node.output] = self.scalar(float(np.prod(counts, dtype=np.int64)))
        else:
            inputs = [env[i] for i in node.inputs]
            env[node.output] = perform(self.table, node.op, inputs, self.attributes(node))

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

    def _call(self, node: Node, env: dict[int, Any]) -> None:
        kernel = self._kernel(node)
        if kernel is not None:
            env.update(zip(node.outputs, kernel(node, env), strict=True))
        else:
            assert node.body is not None
            self.run(node.body.nodes, env)

    def _kernel(self, node: Node) -> Kernel | None:
        return self.kernels.get(node.attributes.get("instance", node.attributes["label"]))

    def _scan(self, node: Node, env: dict[int, Any]) -> None:
        assert node.body is not None
        body, count = node.body, node.attributes["carries"]
        values = [env[i] for i in node.inputs]
        last, stacked = self.loop(
            self._step(body, count, env), values[:count], values[count:], node.attributes["reverse"]
        )
        env.update(zip(node.outputs, [*last, *stacked], strict=True))

    @property
    def loop(self) -> Loop:
        """What runs a scan."""
        return self.scan or self._loop

    def _step(self, body: Block, count: int, outer: Mapping[int, Any]) -> Step:
        def step(carries: Sequence[Any], slices: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            env = dict(outer)
            env.update(zip(body.inputs, [*carries, *slices], strict=True))
            self.run(body.nodes, env)
            results = [env[o] for o in body.outputs]
            return results[:count], results[count:]

        return step

    def _loop(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        def timed(time: int) -> None:
            self._time = time

        result = loop(self.table, step, carries, sequences, reverse, timed)
        self._time = None
        return result


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


def perform(
    table: Table, op: str, inputs: Sequence[Any], attributes: Mapping[str, Any] = NOTHING
) -> Any:
    """What a primitive makes of its inputs. An error that it raises says which one it was.

    Raises:
        TypeError: it made nothing.
    """
    try:
        made = (
            table[op](inputs, **attributes) if op == "concat" else table[op](*inputs, **attributes)
        )
        if made is None:
            raise TypeError("it returned None; a tensor is wanted")
    except Exception as error:
        blame(error, call_text(op, inputs, attributes))
        raise
    return made


def call_text(op: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> str:
    """A call of a primitive for a message: ``slice([3, 4], axis=0, start=0, stop=1)``."""
    named = [f"{name}={value!r}" for name, value in attributes.items()]
    return f"{op}({', '.join([*map(_tensor_text, inputs), *named])})"


def _tensor_text(tensor: Any) -> str:
    try:
        return str([int(n) for n in tensor.shape])
    except Exception:  # it is shown in a message about what is wrong: it may be anything at all
        return type(tensor).__name__
