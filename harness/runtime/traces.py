"""The named values of a pass, noted as they are made, and put in the place of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.arrays import Array
from harness.program.ir import Program, walk_nodes

# Behind a name that several values have.
_NUMBER = re.compile(r"#\d+$")
# One named value: its name, its time step where it was made in a loop, and the array.
Named = tuple[str, int | None, Array]


def distinct_names(program: Program) -> dict[int, str]:
    """The names of a program's values, with a number where several have one, such as the values of
    a loss that is called twice, or an LSTM's outputs and last state. What is made in loops is
    apart: it has a time step.

    They are numbered as the program has them. A framework's layer makes the same in another order.
    """
    looped = {
        output
        for node in walk_nodes(program.nodes)
        if node.op == "scan"
        for inner in walk_nodes(node.block.nodes)
        for output in inner.outputs
    }
    found, seen = {}, Counter[tuple[str, bool]]()
    for value, name in sorted(program.names.items()):
        key = (name, value in looped)
        seen[key] += 1
        found[value] = name if seen[key] == 1 else f"{name}#{seen[key]}"
    return found


def undistinguished(name: str) -> str:
    """A name of :func:`distinct_names` without its number, as the program has it."""
    return _NUMBER.sub("", name)


def places(program: Program) -> dict[str, str]:
    """``file:line`` of the equation of every named value."""
    nodes = list(walk_nodes(program.nodes))
    # What a call or a loop returns was made inside it.
    nodes.sort(key=lambda node: node.body is not None)
    found: dict[str, str] = {}
    for node in nodes:
        for output in node.outputs:
            if output in program.names:
                found.setdefault(program.names[output], node.place)
    return found


@dataclass
class Tracing:
    """A watch of a program's run. Values of ``instead`` take the place of those that are made.

    ``tensor`` makes a tensor of an array, and ``array`` an array of a tensor and its name.
    """

    program: Program
    instead: Sequence[Named]
    tensor: Callable[[Array], Any]
    array: Callable[[Any, str], Array]
    values: list[Named] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = distinct_names(self.program)
        self._others = {(name, time): array for name, time, array in self.instead}

    def watch(self, value: int, tensor: Any, time: int | None) -> Any:
        """Note a value that has a name; the tensor that it goes on with."""
        name = self._names.get(value)
        if name is None:
            return None
        other = self._others.get((name, time))
        made = tensor if other is None else self.tensor(other)
        self.values.append((name, time, self.array(made, name)))
        return made
