"""Which values of a program one step of its output is made of, and in which form each of them."""

from __future__ import annotations

from collections.abc import Iterable

from harness.program.dims import ONE, Dim
from harness.program.ir import Node, Program, Type, free_values, inline_calls, needed_nodes, reads
from harness.program.rows import Form, NoRow, row_inputs

TIME = Dim.of("time")


def times(type_: Type) -> list[int]:
    """The axes of time."""
    return [axis for axis, dim in enumerate(type_.shape) if dim == TIME]


def special(node: Node, axis: int) -> str:
    """What kind of node it is whose row is not the same node of rows; empty for any other."""
    if node.op == "slice" and node.attributes["axis"] == axis:
        return "table"
    if node.op == "windows" and axis in node.attributes["axes"]:
        return "window"
    return node.op if node.op in ("arange", "scan") else ""


class Demands:
    """What the output ``value`` of a program asks for at one step.

    ``nodes`` are those that it needs, ``moving`` the values that another text would change, and
    ``asked`` the forms of each value: an axis of time whose row is asked for, or None for all.

    Raises:
        NoRow: a step cannot be made by itself.
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
        """A value as a message calls it."""
        return self.program.names.get(value, f"a value {self.types[value]}")

    def _only(self, value: int) -> int:
        """The only axis of time of what a text decides."""
        found, shape = times(self.types[value]), self.types[value].shape
        if len(found) != 1 or sum("time" in dim.names for dim in shape) != 1:
            raise NoRow(f"{self.named(value)} has no axis of steps, or more than one")
        return found[0]

    def _ask(self, form: Form) -> None:
        value, axis = form
        forms = self.asked.setdefault(value, set())
        forms.add(axis)
        if axis is None and value in self.moving:
            forms.add(self._only(value))
            if self.types[value].kind != "float" or value in self._inputs():
                raise NoRow(f"{self.named(value)} is read at all steps at once")

    def _inputs(self) -> set[int]:
        return {port.value for port in self.program.inputs}

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
            raise NoRow(f"{self.named(node.output)} is a slice of steps")
        return [(node.inputs[0], None)]

    def _of_window(self, node: Node, axis: int) -> Iterable[Form]:
        given = node.attributes
        span = Dim.of(given["dilation"][0]) * (Dim.of(given["size"][0]) - 1)
        found = [Dim.of(given[name][0]) for name in ("stride", "padding", "after")]
        if len(given["axes"]) > 1 or given["lowest"] or found != [ONE, span, Dim()]:
            raise NoRow(f"{self.named(node.output)} has windows that do not end at their step")
        return [(node.inputs[0], axis)]

    def _of_scan(self, node: Node, number: int, axis: int) -> Iterable[Form]:
        carried = node.inputs[: node.carries]
        if node.reverse or number < node.carries or axis != 0:
            raise NoRow(f"{self.named(node.outputs[number])} is made from the end, or at the end")
        if not self.moving.isdisjoint(carried):
            raise NoRow(f"the scan of {self.named(node.outputs[number])} starts from the text")
        whole = [(value, None) for value in (*carried, *free_values(node.block))]
        return [*whole, *((value, 0) for value in node.inputs[node.carries :])]
