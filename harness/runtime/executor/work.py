"""What a rule of the executor is given of one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.program.ir import Kind
from harness.runtime.executor.buffers import Operand, View, fresh
from harness.runtime.executor.emit import Assembler, Shape


@dataclass(frozen=True, slots=True)
class Work:
    """One node: its operands and attributes, and the shape and the kind of its result.

    ``home`` is where the result should come to lie, None if anywhere.
    """

    assembler: Assembler
    inputs: Sequence[Operand]
    attributes: Mapping[str, Any]
    shape: Shape
    kind: Kind
    home: View | None

    def operands(self) -> list[View]:
        """All inputs, in memory."""
        return [self.assembler.in_memory(i) for i in self.inputs]

    def place(self, like: View | None = None) -> View:
        """The result's home, or a place of its own with its axes in the order of ``like``."""
        return self.home or fresh(self.shape, self.kind, like)
