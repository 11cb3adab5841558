"""Train over batches made on demand. Runs inside the worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.program.plan import TOTAL
from harness.program.signature import group_of
from harness.program.updates import UPDATES
from harness.runtime.answers import Snapshot
from harness.runtime.executor import KEPT
from harness.runtime.native import Advance, Tensors
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session
from harness.runtime.step import make_step, store
from harness.runtime.step_loop import Carry, StepLoop
from harness.runtime.updates import STEP, steps_made

# Bytes of batches that a backend gets at once.
GIVEN = 1 << 21
# Steps in one call, if a backend can make several. If the batches have few bytes, calls dominate
# the cost, so a call makes more steps.
MANY, MANY_SMALL, SMALL = 8, 64, 1 << 20

Rows = Array


class BatchSource(Protocol):
    """A source of batches, by the numbers of their rows."""

    @property
    def classes(self) -> Mapping[str, int]:
        """The number of classes of each one-hot array that is also available as indices."""

    def batch(self, rows: Rows, compact: Collection[str] = (), step: int | None = None) -> Arrays:
        """Return arrays ``[..., batch, ...]`` by ``input.NAME`` and ``target.NAME``.

        ``rows`` has any shape ``[..., batch]``. Arrays named in ``compact`` are indices, not
        one-hot. If ``step`` is given, noise is included; it is the number of the first step,
        counted from 0.
        """

    def expand(self, name: str, taken: Array) -> Array:
        """Return the one-hot form of indices, if the array is one-hot."""


class Loader:
    """A loader that lays out a source's batches for a step; ``rows`` ``[batch]`` is an example.

    ``orders`` are the axis orders of tensors that the step wants in another order; see
    :class:`harness.program.plan.Plan`. ``many`` steps go into one call, if that is given. If the
    backend cannot write into tensors, batches hold indices instead of one-hot rows, and
    :meth:`expand` is part of the step.
    """

    def __init__(
        self,
        session: Session,
        source: BatchSource,
        rows: Rows,
        orders: Mapping[str, tuple[int, ...]] | None = None,
        many: int | None = None,
    ) -> None:
        self._session, self._backend, self._source = session, session.backend, source
        self._orders = orders or {}
        kept = {n: axes[-1] == len(axes) - 1 for n, axes in self._orders.items()}
        # One-hot arrays whose classes stay the last axis.
        self._early = {n: count for n, count in source.classes.items() if kept.get(n, True)}
        self._classes = {} if self._backend.rewrites else self._early
        self._given: Tensors = {}
        self._parts: list[Tensors] = []
        self._bytes = sum(array.nbytes for array in self._arrays(rows).values())
        self.many = many or (MANY_SMALL if MANY_SMALL * self._bytes <= SMALL else MANY)

    def batch(self, rows: Rows, step: int = 0) -> Tensors:
        """Return the tensors of rows ``[batch]`` at a step, or ``[steps, batch]`` from it on."""
        tensor = self._backend.tensor
        return {name: tensor(array) for name, array in self._arrays(rows, step).items()}

    def expand(self, batch: Tensors) -> Tensors:
        """Return a batch of :meth:`batch` or :meth:`each` with its indices as one-hot rows."""
        if not self._classes:
            return batch
        one_hot, dtype = self._backend.primitives["one_hot"], self._session.dtype
        made = {n: one_hot(batch[n], classes, dtype) for n, classes in self._classes.items()}
        return {**batch, **made}

    def batches(self, rows: Rows, stacked: bool, step: int = 0) -> Iterator[tuple[Tensors, bool]]:
        """Yield the batches of rows ``[steps, batch]``, and whether each is a stack of
        :attr:`many`."""
        done = 0
        while stacked and len(rows) - done >= self.many:
            yield self.batch(rows[done : done + self.many], step + done), True
            done += self.many
        if done < len(rows):
            for batch in self.each(rows[done:], step + done):
                yield batch, False

    def each(self, rows: Rows, step: int = 0) -> Iterator[Tensors]:
        """Yield the batches of rows ``[steps, batch]``; each must be used before the next.

        A backend that can write into tensors gets many batches at once, always in the same memory.
        An executor then knows its inputs, and a single step needs no further work.
        """
        if not self._backend.rewrites:
            yield from (self.batch(one, step + number) for number, one in enumerate(rows))
            return
        if not self._parts:
            self._allocate(rows[:1])
        count = len(self._parts)
        ahead = max(1, GIVEN // (self._bytes * count)) * count
        for first in range(0, len(rows), ahead):
            arrays = self._arrays(rows[first : first + ahead], step + first)
            for start in range(0, min(ahead, len(rows) - first), count):
                yield from self._write({n: a[start : start + count] for n, a in arrays.items()})

    def _allocate(self, rows: Rows) -> None:
        arrays = self._arrays(rows)
        count = max(1, min(KEPT, GIVEN // self._bytes))
        backend = self._backend
        self._given = {n: backend.tensor(np.repeat(a, count, axis=0)) for n, a in arrays.items()}
        parts = {n: backend.unstack(tensor) for n, tensor in self._given.items()}
        self._parts = [{n: p[step] for n, p in parts.items()} for step in range(count)]

    def _write(self, arrays: Arrays) -> Sequence[Tensors]:
        """Return the parts that now hold these batches: all, or as many as there are batches."""
        fill = self._backend.fill
        parts = self._parts[: len(next(iter(arrays.values())))]
        for name, array in arrays.items():
            if len(parts) == len(self._parts):
                fill(self._given[name], array)
            else:
                for part, single in zip(parts, array, strict=True):
                    # Iterating over a 1-d array gives numbers, not arrays.
                    fill(part[name], np.asarray(single))
        return parts

    def _arrays(self, rows: Rows, step: int = 0) -> ArrayDict:
        """Return the arrays of rows in the axis orders of the step; reorder indices before
        expanding."""
        arrays, lead = {}, rows.ndim - 1
        for name, array in self._source.batch(rows, self._early, step).items():
            axes = self._orders.get(name)
            if axes is not None:
                kept = axes[:-1] if name in self._early else axes
                array = array.transpose((*range(lead), *(lead + axis for axis in kept)))
            late = name in self._early and name not in self._classes
            arrays[name] = self._source.expand(name, array) if late else array
        return arrays


class ListedBatches:
    """A source of given batches with ``inputs`` and ``targets``, all of one shape."""

    classes: Mapping[str, int] = {}

    def __init__(self, batches: Sequence[Mapping[str, Any]], dtype: str) -> None:
        named = [
            {f"{kind}.{n}": a for kind in ("input", "target") for n, a in batch[f"{kind}s"].items()}
            for batch in batches
        ]
        kinds: Mapping[str, Any] = {"f": host_dtype(dtype), "b": np.bool_}
        self._arrays = {
            name: np.stack([b[name].astype(kinds.get(b[name].dtype.kind, np.int64)) for b in named])
            for name in named[0]
        }

    def batch(
        self, rows: Rows, compact: Collection[str] = (), step: int | None = None
    ) -> ArrayDict:
        """Return the batches with the numbers ``rows`` ``[..., 1]``, including their noise."""
        return {name: array[rows[..., 0]] for name, array in self._arrays.items()}

    def expand(self, name: str, taken: Array) -> Array:
        """Return ``taken`` unchanged."""
        return taken


class _Steps(NamedTuple):
    loop: StepLoop
    loader: Loader


class TrainingSteps:
    """A session that trains at the speed of a pipeline.

    Steps are compiled, several go into one call if the backend supports it, and batches reuse
    memory. ``state`` is the state of the next step and ``count`` the number of steps made. They
    hold after :meth:`store`. ``many`` is the number of steps in one call; the batch size decides if
    it is not given.
    """

    def __init__(self, session: Session, source: BatchSource, many: int | None = None) -> None:
        self.session, self.source, self.many = session, source, many
        self.state: Tensors = {}
        self.count = 0
        self._made: dict[Any, _Steps] = {}
        self._carry = Carry()

    def begin(self, state: Tensors, count: int = 0) -> None:
        """Go on from a state and from the values that the session has loaded."""
        self.state, self.count = state, count
        self._carry.carried = {}

    def run(self, rate: float, rows: Rows) -> float:
        """Train on batches of one size, with rows ``[steps, batch]``; return the sum of losses."""
        loop, loader = self._steps(rate, rows[0])
        self._carry.carried[TOTAL] = self.session.scalar(0.0)
        batches = loader.batches(rows, loop.several is not None, self.count)
        loop.run(self._carry, batches)
        self.count += len(rows)
        return float(self.session.array(self._carry.carried[TOTAL], "the sum of losses"))

    def store(self) -> None:
        """Put the carried tensors back into the session."""
        if self._carry.carried:
            store(self.session, self._carry.carried)
            self.session.steps = self._updates()
            self.state = {n: t for n, t in self._carry.carried.items() if n.startswith("state.")}
            self._carry.carried = {}

    def left(self) -> Snapshot:
        """Return everything that a training resumes from, as arrays.

        These are neutral ``parameters``, ``statistics`` and ``slots``, the ``state``, the number of
        ``steps`` made, and in float16 the ``scaling`` of the loss.
        """
        self.store()
        session = self.session
        state = {n: session.array(t, n) for n, t in self.state.items()}
        scaling = {n: session.array(t, n) for n, t in session.scaling.items()}
        if session.scales:
            scaling[UPDATES] = np.asarray(session.steps, np.float32)
        return {
            **session.read(),
            "state": group_of(state, "state."),
            "scaling": scaling,
            "steps": self.count,
        }

    def take_up(self, left: Mapping[str, Any]) -> None:
        """Resume from the result of :meth:`left`. Empty slots and scaling are those after
        :meth:`.session.Session.load`."""
        session, scaling, steps = self.session, left["scaling"], left["steps"]
        session.load(left["parameters"], left["statistics"])
        if left["slots"]:
            session.load_slots(left["slots"], steps)
        session.steps = steps  # a schedule counts them even without slots
        if scaling:
            session.scaling = {n: session.scalar(float(scaling[n])) for n in session.scaling}
            session.steps = int(scaling[UPDATES])
        floats = {f"state.{n}": session.float_tensor(a) for n, a in left["state"].items()}
        self.begin(floats, steps)

    def _updates(self) -> int:
        """Return the number of the optimizer's steps: all but those that float16 skipped."""
        if not self.session.scales:
            return self.count
        return steps_made(self.session.array(self._carry.carried[STEP], STEP))

    def _steps(self, rate: float, rows: Rows) -> _Steps:
        """Return the step at a learning rate for a batch like these rows, and begin it if
        necessary."""
        key = (rate, len(rows))
        if key not in self._made:
            self.store()
            backend = self.session.backend
            plain = Loader(self.session, self.source, rows)
            example = plain.expand(plain.batch(rows))
            step = make_step(self.session, "train", example, self.state, rate, total=True)
            loader = Loader(self.session, self.source, rows, step.orders, self.many)
            advance = _expanding(step.advance, loader)
            self._made[key] = _Steps(StepLoop.of(backend, advance), loader)
            self._begin = step.begin
        if not self._carry.carried:
            self._carry = Carry(*self._begin(self.state))
        return self._made[key]


def _expanding(advance: Advance, loader: Loader) -> Advance:
    """Return a step that expands the loader's batch and drops all results but the carried ones."""

    def expanding(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
        return advance(carried, fixed, loader.expand(batch))[0], {}

    return expanding
