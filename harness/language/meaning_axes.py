"""The parts that the meaning of definitions is made of: axes by number, kinds, checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.language import schema
from harness.language.declared_axes import REST
from harness.language.document import Document
from harness.language.input_types import Entries, entries_of
from harness.language.size_expressions import read_dim
from harness.program.dims import Dim

# Digits of a checksum: enough that no two definitions have one by chance.
DIGITS = 16
Names = dict[str, str]  # what each name of a body of equations stands for, as a checksum
Shapes = Mapping[str, Any]


def sum_of(*parts: Any) -> str:
    """The checksum of names, numbers and checksums in this order."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGITS]


class Axes:
    """The axes of a definition's shapes: by number in the order in which its inputs name them."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.dims = {n: Dim.of(n) for n, default in attributes.items() if default == "size"}
        # Those that are whole numbers may stand in shapes, too.
        self.numbers = {n: Dim.of(n) for n in attributes if n not in self.dims}

    def inputs(self, inputs: Shapes) -> list[tuple[str, Any]]:
        """The inputs in their order: name, axes, and the axis that an index is below."""
        return [(name, self._input(given)) for name, given in inputs.items()]

    def _input(self, given: Any) -> Any:
        if isinstance(given, schema.Input):
            found = entries_of(given)
            index = None if found.size is None else self._axis(found.size)
            others = [found.kind, found.more] if given.index is None and found != Entries() else []
            return [self._axis(axis) for axis in given.shape], index, *others
        return given if isinstance(given, str) else ([self._axis(axis) for axis in given], None)

    def _axis(self, axis: int | str) -> str:
        if isinstance(axis, int) or axis == REST:
            return str(axis)
        return str(self.dims.setdefault(axis, Dim.of(f"#{len(self.dims)}")))

    def shape(self, axes: Sequence[int | str], document: Document) -> list[str]:
        """A declared shape of these axes."""
        at = document.place_of(())
        known = {**self.numbers, **self.dims}
        return [a if a == REST else str(read_dim(a, known, at)) for a in axes]

    def names(self) -> Names:
        """What the axes stand for in equations: how long they are."""
        return {name: sum_of("size", str(dim)) for name, dim in self.dims.items()}


def kinds_of(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each attribute is: a size, true or false, the name of a function, or a number."""

    def kind(default: Any) -> str:
        if default == "size" or isinstance(default, bool):
            return "truth" if isinstance(default, bool) else "size"
        return "function" if isinstance(default, str) else "number"

    return sorted((name, kind(default)) for name, default in attributes.items())
