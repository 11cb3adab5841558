"""Backends on numpy that do less in steps that nobody reads, each in one way.

They know what a backend can know: what they are given, what is read and what is waited for. What
they save may be no time here; it would be on a device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import NumpyBackend, Run, serving


class Watching(NumpyBackend):  # type: ignore[misc]
    """Counts the steps since somebody has read or waited; a cheat overrides :meth:`unread`.

    ``patience`` is how many such steps it makes as it must, ``honesty`` how many steps at first.
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
        """A step whose predecessor nobody has read: the results that are to pass for it."""
        results = run(inputs)
        for name, given in plan.carried.items():
            results[name] = self.handed_on(given, before[given], results[name])
        return results

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        """What goes to the next step, of what did before and of what should."""
        return after


class FrozenBias(Watching):
    """One bias is never updated; the next loss hides it."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name == "out.b" else after


class FrozenSlots(Watching):
    """Moments of the optimizer stay as they are."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith(("m.", "v.")) else after


class HalvedRate(Watching):
    """Parameters go half the way."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        moved = "." in name and not name.startswith(("m.", "v.", "state.", "statistics."))
        return (before + after) / 2 if moved else after


class EverySecondUpdate(Watching):
    """Every second step changes nothing."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if self.since % 2 else after


class StaleStatistics(Watching):
    """Moving averages do not move."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("statistics.") else after


class StaleState(Watching):
    """The state of a recurrent layer is not handed on."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("state.") else after


class Coarse(Watching):
    """Computes as in bfloat16, whose numbers have eight binary digits."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        results = run(inputs)
        return {n: coarse(a) if np.ndim(a) else a for n, a in results.items()}


def coarse(array: Any) -> Any:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).view(np.float32).reshape(np.shape(array))


class CoarseInRows(Coarse):
    """Computes as in bfloat16 only where many steps are asked for in a row."""

    patience = 5


class FrozenLate(FrozenBias):
    """Updates a bias until more steps in a row were read by nobody than a proof may have."""

    patience = 32


class FrozenOnceProved(FrozenBias):
    """Is honest until long after the first proofs."""

    honesty = 60


class HalfBatch(Watching):
    """Computes the first half of a batch, and leaves the other as it was the last time."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        results = {n: np.array(a) for n, a in run(inputs).items()}
        for name, array in results.items():
            if name.startswith("output."):
                array[len(array) // 2 :] = array[: len(array) - len(array) // 2]
        return results


class HalfGradient(Watching):
    """Trains on the first half of a batch, twice."""

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        given = dict(inputs)
        for name, array in inputs.items():
            if name.startswith(("input.", "target.")):
                given[name] = np.array(array)
                # Of arrays whose axes are in another order the batch comes last.
                axis = plan.orders.get(name, (0,)).index(0)
                half = np.take(array, range(array.shape[axis] // 2), axis)
                given[name] = np.concatenate([half, half], axis)
        return super().unread(plan, before, run, given)


class StaleSecond(Watching):
    """Every second step that nobody reads gives what the one before gave."""

    def execute(self, plan: Plan) -> Run:
        self.kept: Tensors = {}
        return super().execute(plan)

    def unread(self, plan: Plan, before: Tensors, run: Run, inputs: Tensors) -> Tensors:
        if self.since % 2 or not self.kept:
            self.kept = {n: np.array(a) for n, a in run(inputs).items()}
        return self.kept


class MomentsEverySecond(Watching):
    """Second moments are kept up to date in every second step that nobody reads."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        return before if name.startswith("v.") and self.since % 2 else after


class SmallUpdatesDropped(Watching):
    """What moves an entry by less than half of the furthest move is left out."""

    def handed_on(self, name: str, before: Any, after: Any) -> Any:
        if not name.endswith((".W", ".U", ".table")):
            return after
        moved = np.abs(after - before)
        return np.where(moved < moved.max() / 2, before, after)


class RoundedParameters(Watching):
    """Parameters are read with twelve binary digits of 24, as TF32 has them."""

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
