"""Backends on numpy that do less work in unread steps, each in a different way.

They use what a backend can know: its inputs, and which results are read or waited for. On numpy a
cheat may save no time; on a device it would.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import NumpyBackend, Run, serving


class Watching(NumpyBackend):  # type: ignore[misc]
    """A backend that counts steps since the last read or wait; a cheat overrides :meth:`unread`.

    The first ``honesty`` steps, and up to ``patience`` unread steps in a row, are honest.
    """

    patience, honesty = 1, 0

    def __init__(self) -> None:
        self.since = self.made = 0

    def numpy(self, tensor: Any) -> Any:
        self.since = 0
        return super().numpy(tensor)

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def watched(inputs: Tensors) -> Tensors:
            since, self.since = self.since, self.since + 1
            self.made += 1
            if since < self.patience or self.made <= self.honesty:
                return run(inputs)
            before = {given: np.array(inputs[given]) for given in plan.carried.values()}
            return self.unread(plan, before, run, inputs)

        return watched

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        """Return the results of a step after an unread step; a cheat returns wrong results."""
        results = run(inputs)
        for name, given in plan.carried.items():
            results[name] = self.handed_on(given, before[given], results[name])
        return results

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        """Return the value for the next step, given the old and the right new value."""
        return after


class FrozenBias(Watching):
    """A backend that never updates one bias; the next loss hides it."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name == "out.b" else after


class FrozenSlots(Watching):
    """A backend that does not update the moments of the optimizer."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith(("m.", "v.")) else after


class HalvedRate(Watching):
    """A backend whose parameters change by half of the right update."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        moved = "." in name and not name.startswith(("m.", "v.", "state.", "statistics."))
        return (before + after) / 2 if moved else after


class EverySecondUpdate(Watching):
    """A backend in which every second step changes nothing."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if self.since % 2 else after


class StaleStatistics(Watching):
    """A backend whose moving averages do not change."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("statistics.") else after


class StaleState(Watching):
    """A backend that does not pass on the state of a recurrent layer."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("state.") else after


class Coarse(Watching):
    """A backend that computes in bfloat16 precision (eight binary digits)."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        results = run(inputs)
        return {n: coarse(a) if np.ndim(a) else a for n, a in results.items()}


def coarse(array: Any) -> Any:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).view(np.float32).reshape(np.shape(array))


class CoarseInRows(Coarse):
    """A backend that computes in bfloat16 precision if many steps run in a row."""

    patience = 5


class FrozenLate(FrozenBias):
    """A backend that stops updating a bias after more unread steps than a proof can have."""

    patience = 32


class FrozenOnceProved(FrozenBias):
    """A backend that is honest until long after the first proofs."""

    honesty = 60


class HalfBatch(Watching):
    """A backend that computes the first half of a batch and copies the results to the second."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        results = {n: np.array(a) for n, a in run(inputs).items()}
        for name, array in results.items():
            if name.startswith("output."):
                array[len(array) // 2 :] = array[: len(array) - len(array) // 2]
        return results


class HalfGradient(Watching):
    """A backend that trains twice on the first half of a batch."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        given = dict(inputs)
        for name, array in inputs.items():
            if name.startswith(("input.", "target.")):
                given[name] = np.array(array)
                # If the axes of an array have another order, the batch may be the last axis.
                axis = plan.orders.get(name, (0,)).index(0)
                half = np.take(array, range(array.shape[axis] // 2), axis)
                given[name] = np.concatenate([half, half], axis)
        return super().unread(plan, before, run, given)


class StaleSecond(Watching):
    """A backend in which every second unread step returns the results of the step before."""

    def execute(self, plan: Plan) -> Run:
        self.kept: Tensors = {}
        return super().execute(plan)

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        if self.since % 2 or not self.kept:
            self.kept = {n: np.array(a) for n, a in run(inputs).items()}
        return self.kept


class MomentsEverySecond(Watching):
    """A backend that updates second moments only in every second unread step."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("v.") and self.since % 2 else after


class SmallUpdatesDropped(Watching):
    """A backend that drops updates smaller than half of the largest update."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        if not name.endswith((".W", ".U", ".table")):
            return after
        moved = np.abs(after - before)
        return np.where(moved < moved.max() / 2, before, after)


class RoundedParameters(Watching):
    """A backend that rounds parameters to 12 of 24 binary digits, like TF32."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        matrices = {n: twelve(a) for n, a in inputs.items() if n.endswith((".W", ".U"))}
        return super().unread(plan, before, run, {**inputs, **matrices})


def twelve(array: Any) -> Any:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x800) & 0xFFFFF000).view(np.float32).reshape(np.shape(array))


moments_every_second = serving(MomentsEverySecond)
small_updates_dropped = serving(SmallUpdatesDropped)
rounded_parameters = serving(RoundedParameters)
frozen_bias = serving(FrozenBias)
frozen_slots = serving(FrozenSlots)
halved_rate = serving(HalvedRate)
every_second_update = serving(EverySecondUpdate)
stale_statistics = serving(StaleStatistics)
stale_state = serving(StaleState)
coarse_unread = serving(Coarse)
coarse_in_rows = serving(CoarseInRows)
frozen_late = serving(FrozenLate)
frozen_once_proved = serving(FrozenOnceProved)
half_batch = serving(HalfBatch)
half_gradient = serving(HalfGradient)
stale_second = serving(StaleSecond)
