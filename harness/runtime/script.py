"""A script: nodes prepared for many runs at the same sizes, so that a run looks nothing up.

The walk of :mod:`harness.runtime.interpreter` does the same once; the difference is the harness's
own share of a small step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.errors import blame
from harness.program.ir import Node
from harness.runtime.interpreter import Walker, call_text

Values = dict[int, Any]
Line = Callable[[Values], None]
# Makes the line of a call that a backend has claimed.
Claimed = Callable[[Node], Line]


class Script:
    """Runs nodes over a walker's table; ``claimed`` makes the lines of claimed calls, by key."""

    def __init__(
        self, walker: Walker, nodes: Iterable[Node], claimed: Mapping[str, Claimed] | None = None
    ) -> None:
        self._walker, self._claimed = walker, claimed or {}
        self._nodes: dict[Line, Node] = {}
        self._lines = [line for node in nodes for line in self._made(node)]

    def run(self, values: Values) -> Values:
        """Add every value that the nodes make. An error of a primitive says which one it was."""
        try:
            for line in self._lines:
                line(values)
        except Exception as error:
            if line in self._nodes:
                self._blame(error, self._nodes[line], values)
            raise
        return values

    def _blame(self, error: Exception, node: Node, values: Values) -> None:
        nothing = [i for i in node.inputs if values.get(i, node) is None]
        origins = [n.op for i in nothing for n in self._nodes.values() if i in n.outputs]
        inputs = [values.get(i) for i in node.inputs]
        text = call_text(node.op, inputs, self._walker.attributes(node))
        blame(error, text + "".join(f"; {op} before it returned None" for op in origins[:1]))

    def _made(self, node: Node) -> list[Line]:
        if node.op == "call":
            key = node.attributes.get("instance", node.attributes["label"])
            if key in self._claimed:
                return [self._claimed[key](node)]
            assert node.body is not None
            return [line for inner in node.body.nodes for line in self._made(inner)]
        if node.op == "scan":
            return [self._scan(node)]
        if node.op in ("constant", "extent"):
            made = self._walker.run([node], {})
            return [lambda values: values.update(made)]
        line = self._operation(node)
        self._nodes[line] = node
        return [line]

    def _operation(self, node: Node) -> Line:
        function, output = self._walker.table[node.op], node.output
        attributes = self._walker.attributes(node)
        inputs = node.inputs
        if node.op == "concat":

            def join(values: Values) -> None:
                values[output] = function([values[i] for i in inputs], **attributes)

            return join
        if len(inputs) == 1:
            (only,) = inputs

            def one(values: Values) -> None:
                values[output] = function(values[only], **attributes)

            return one
        if len(inputs) == 2 and not attributes:
            left, right = inputs

            def two(values: Values) -> None:
                values[output] = function(values[left], values[right])

            return two

        def several(values: Values) -> None:
            values[output] = function(*[values[i] for i in inputs], **attributes)

        return several

    def _scan(self, node: Node) -> Line:
        body, count = node.body, node.attributes["carries"]
        assert body is not None
        script = Script(self._walker, body.nodes, self._claimed)
        loop, reverse = self._walker.loop, node.attributes["reverse"]
        names, ends = body.inputs, body.outputs

        def line(values: Values) -> None:
            def step(carries: Sequence[Any], slices: Sequence[Any]) -> tuple[list[Any], list[Any]]:
                inner = dict(values)
                inner.update(zip(names, (*carries, *slices), strict=True))
                script.run(inner)
                results = [inner[o] for o in ends]
                return results[:count], results[count:]

            given = [values[i] for i in node.inputs]
            last, stacked = loop(step, given[:count], given[count:], reverse)
            values.update(zip(node.outputs, (*last, *stacked), strict=True))

        return line
