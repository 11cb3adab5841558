"""What a model adds to any optimizer: gradients that are gathered, and a mean of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.program.builder import Builder
from harness.program.ir import Type

# Names that no definition can have for a slot: those begin with a letter.
GATHERED, AVERAGED = "_gathered", "_averaged"


class AddedSlots:
    """Equations around those of an optimizer, for ``accumulate`` steps to one update.

    ``count`` is the number of the update that a step belongs to, from 1, and ``gradient`` the mean
    of the gradients gathered so far: what the optimizer's equations read as ``t`` and ``g``. Those
    of the steps between are made too, and thrown away. ``starts`` says how each of ``slots``
    begins; they are of ``type_``, as the parameter is.
    """

    def __init__(
        self,
        builder: Builder,
        values: Mapping[str, int],
        type_: Type,
        accumulate: int | None,
        average: float | None,
    ) -> None:
        self.builder, self.accumulate, self.average = builder, accumulate, average
        self.count, self.gradient = values["t"], values["g"]
        self.slots: dict[str, int] = {}
        self.starts: dict[str, Mapping[str, Any] | None] = {}
        if average is not None:
            self.slots[AVERAGED] = builder.value(type_, AVERAGED)
            self.starts[AVERAGED] = {"parameter": {}}
        if accumulate is None:
            return
        emit, steps = builder.emit, builder.constant(accumulate)
        self.slots[GATHERED] = builder.value(type_, GATHERED)
        self.starts[GATHERED] = None
        part = emit("divide", values["g"], steps)
        self.gradient = emit("add", self.slots[GATHERED], part)
        # Half a step away from what rounding could turn.
        before = emit("add", values["t"], builder.constant(accumulate - 0.5))
        self.count = emit("floor", emit("divide", before, steps))
        after = emit("add", values["t"], builder.constant(0.5))
        self.due = emit("less", emit("multiply", self.count, steps), after)

    def finished(self, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
        """What ``p`` and every slot become, from what they were and what the equations made."""
        emit, constant = self.builder.emit, self.builder.constant
        found, old = dict(after), dict(before)
        if self.average is not None:
            old[AVERAGED] = self.slots[AVERAGED]
            kept = emit("multiply", constant(self.average), old[AVERAGED])
            new = emit("multiply", constant(1.0 - self.average), after["p"])
            found[AVERAGED] = emit("add", kept, new)
        if self.accumulate is not None:
            found = {n: emit("where", self.due, v, old[n]) for n, v in found.items()}
            found[GATHERED] = emit("where", self.due, constant(0.0), self.gradient)
        return found
