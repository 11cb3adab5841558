"""Backends on numpy that leave work undone until its results are read."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Advance, Tensors
from timed.handlers import NumpyBackend, Run, serving


class Later:
    """A result that is computed when it is read."""

    def __init__(self, work: Callable[[], Tensors], name: str, shape: tuple[int, ...]) -> None:
        self.work, self.name, self.shape = work, name, shape


def run_once(run: Run, inputs: Tensors) -> Callable[[], Tensors]:
    """Return a function that computes a step at its first call, and caches the results."""
    known: Tensors = {}

    def work() -> Tensors:
        if not known:
            known.update({n: np.array(a) for n, a in run(inputs).items()})
        return known

    return work


def delay_results(plan: Plan, work: Callable[[], Tensors]) -> Tensors:
    """Return the results of a step, of which each does the work when it is read."""
    return {n: Later(work, n, plan.shape(v)) for n, v in plan.outputs.items()}


class Lazy(NumpyBackend):  # type: ignore[misc]
    """A backend that can read results of :class:`Later`, which are computed only then."""

    def numpy(self, tensor: Any) -> Any:
        found = tensor.work()[tensor.name] if isinstance(tensor, Later) else tensor
        return super().numpy(found)


class SkippingSecond(Lazy):
    """A backend that computes every second step of a forward pass only if its results are read."""

    def skips(self, made: int) -> bool:
        """Return whether a step, counted from 1, is put off."""
        return made % 2 == 0

    def execute(self, plan: Plan) -> Run:
        run, made = super().execute(plan), [0]

        def lazy(inputs: Tensors) -> Tensors:
            made[0] += 1
            if not self.skips(made[0]):
                results = run(inputs)
                return {n: np.array(a) for n, a in results.items()}
            return delay_results(plan, run_once(run, inputs))

        return lazy


class SkippingUnread(SkippingSecond):
    """The same cheat, but a step is computed immediately if the previous step was read."""

    def execute(self, plan: Plan) -> Run:
        run, lazy = NumpyBackend.execute(self, plan), super().execute(plan)

        def watched(inputs: Tensors) -> Tensors:
            since, self.since = self.since, self.since + 1
            return lazy(inputs) if since else {n: np.array(a) for n, a in run(inputs).items()}

        return watched

    since = 0

    def numpy(self, tensor: Any) -> Any:
        self.since = 0
        return super().numpy(tensor)


class SkippingByLot(SkippingSecond):
    """A backend that puts off each step of a forward pass with probability one half."""

    def skips(self, made: int) -> bool:
        return bool(np.random.default_rng(made).integers(2))


class SkippingForgotten(Lazy):
    """A backend that puts off each step until two steps later.

    If the results of a step are no longer referenced by then, it computes only every second such
    step.
    """

    def execute(self, plan: Plan) -> Run:
        run, made = super().execute(plan), [0]
        before: list[tuple[weakref.ref[Later], Callable[[], Tensors]]] = []

        def putting_off(inputs: Tensors) -> Tensors:
            made[0] += 1
            while len(before) > 1:  # the loop itself still holds the last
                held, work = before.pop(0)
                if held() is not None or made[0] % 2:
                    work()
            work = run_once(run, inputs)
            results = delay_results(plan, work)
            before.append((weakref.ref(next(iter(results.values()))), work))
            return results

        return putting_off


class HalfWhenRead(Lazy):
    """A backend that computes half of each step at once, and half when its results are read."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def half(inputs: Tensors) -> Tensors:
            run(inputs)  # one of the two runs that make a step here
            return delay_results(plan, run_once(run, inputs))

        return half


class Debt(NumpyBackend):  # type: ignore[misc]
    """A backend that puts off a part of each step until the optimizer's slots are read."""

    pause = 0.004

    def __init__(self) -> None:
        self.owed, self.slots = 0.0, set()

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def later(inputs: Tensors) -> Tensors:
            results = run(inputs)
            self.slots = {id(a) for n, a in results.items() if n.startswith("m.")}
            self.owed += self.pause
            return results

        return later

    def wait(self, tensors: Tensors) -> None:
        pass

    def numpy(self, tensor: Any) -> Any:
        if id(tensor) in self.slots:
            time.sleep(self.owed)
            self.owed = 0.0
        return super().numpy(tensor)


class AnewWhenRead(Lazy):
    """A backend that computes a step of a forward pass each time its results are read."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def lazy(inputs: Tensors) -> Tensors:
            return delay_results(plan, lambda: {n: np.array(a) for n, a in run(inputs).items()})

        return lazy


class SecondReading(Lazy):
    """A backend that cheats if steps are not waited for.

    It then computes the following steps only when their results are read for the second time. After
    a restart it is honest again."""

    def __init__(self) -> None:
        self.since, self.honest = 0, True

    def tensor(self, array: Any) -> Any:
        if np.asarray(array).dtype.kind == "f" and np.ndim(array) == 2:  # a parameter, at a start
            self.since, self.honest = 0, True
        return super().tensor(array)

    def wait(self, tensors: Tensors) -> None:
        self.since = 0

    def numpy(self, tensor: Any) -> Any:
        if isinstance(tensor, Later) and not hasattr(tensor, "seen"):
            tensor.seen = True  # type: ignore[attr-defined]
            return np.array(self.sample[tensor.name])
        return super().numpy(tensor)

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def lazy(inputs: Tensors) -> Tensors:
            self.since += 1
            self.honest = self.honest and self.since < 3
            if self.honest:
                self.sample = {n: np.array(a) for n, a in run(inputs).items()}
                return self.sample
            return delay_results(plan, run_once(run, inputs))

        return lazy


class RowsWhenRead(Lazy):
    """A backend that computes each of several steps in a call only when its results are read."""

    def several(self, step: Advance) -> Advance:
        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            count = len(next(iter(batches.values())))

            def work() -> Tensors:
                rows = []
                for index in range(count):
                    _, made = step(carried, fixed, {n: t[index] for n, t in batches.items()})
                    rows.append({n: np.array(t) for n, t in made.items()})
                return {n: np.stack([row[n] for row in rows]) for n in rows[0]}

            _, one = step(carried, fixed, {n: t[0] for n, t in batches.items()})
            return carried, {n: Later(work, n, (count, *t.shape)) for n, t in one.items()}

        return run


skipping_second = serving(SkippingSecond)
skipping_unread = serving(SkippingUnread)
skipping_by_lot = serving(SkippingByLot)
skipping_forgotten = serving(SkippingForgotten)
half_when_read = serving(HalfWhenRead)
anew_when_read = serving(AnewWhenRead)
second_reading = serving(SecondReading)
rows_when_read = serving(RowsWhenRead)
debt = serving(Debt)
