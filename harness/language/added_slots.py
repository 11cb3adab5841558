"""Two additions that a model can make to its optimizer: gradient accumulation, and a moving average
of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.program.builder import Builder
from harness.program.ir import Type

# Slot names that no definition can use, because names in definitions begin with a letter.
GATHERED, AVERAGED = "_gathered", "_averaged"


class AddedSlots:
    """Gradient accumulation and parameter averaging, as equations before and after the optimizer's
    equations.

    The optimizer's equations run at every step. Their ``t`` is ``count``, the number of the update,
    and their ``g`` is ``gradient``, the mean of the gradients accumulated so far. At steps that
    make no update, :meth:`update_results` discards the results of these equations. ``slots`` maps
    the names of additional arrays to value numbers; each has the parameter's type ``type_``.
    ``starts`` maps the same names to initial values. ``accumulate`` is the number of steps per
    update, and ``average`` the decay of the moving average; None leaves the addition out.
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
        # Add half a step, so that a rounding error cannot change the result.
        before = emit("add", values["t"], builder.constant(accumulate - 0.5))
        self.count = emit("floor", emit("divide", before, steps))
        after = emit("add", values["t"], builder.constant(0.5))
        self.due = emit("less", emit("multiply", self.count, steps), after)

    def update_results(self, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
        """Return the values after a step: the parameter (key ``p``) and the slots. ``before`` has
        these values before the step, and ``after`` has the results of the optimizer's equations."""
        emit, constant = self.builder.emit, self.builder.constant
        results, unchanged = dict(after), dict(before)
        if self.average is not None:
            unchanged[AVERAGED] = self.slots[AVERAGED]
            decayed = emit("multiply", constant(self.average), unchanged[AVERAGED])
            new = emit("multiply", constant(1.0 - self.average), after["p"])
            results[AVERAGED] = emit("add", decayed, new)
        if self.accumulate is not None:
            results = {n: emit("where", self.due, v, unchanged[n]) for n, v in results.items()}
            results[GATHERED] = emit("where", self.due, constant(0.0), self.gradient)
        return results
