"""Steps of training over batches that come as they are asked for. Runs inside the worker."""

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

# Batches of a source as tensors, at little cost for each. Runs inside the worker.

# Bytes of batches that a backend gets at once.
GIVEN = 1 << 21
# Steps that go into one call, where a backend has a way to make several: more of them if their
# batches have few bytes, as then it is calls that cost.
MANY, MANY_SMALL, SMALL = 8, 64, 1 << 20

Rows = Array


class BatchSource(Protocol):
    """Batches by the numbers of their rows."""

    @property
    def classes(self) -> Mapping[str, int]:
        """How many classes each array of one-hot rows has that can be had as indices."""

    def batch(self, rows: Rows, compact: Collection[str] = (), step: int | None = None) -> Arrays:
        """By ``input.NAME`` and ``target.NAME``: rows of any shape ``[..., batch]`` give arrays
        ``[..., batch, ...]``. Those in ``compact`` are indices in place of their one-hot form.
        With the number of the first ``step``, from 0, noise is among them."""

    def expand(self, name: str, taken: Array) -> Array:
        """The one-hot form of indices, if the array is to have it."""


class Loader:
    """The batches of a source, as a step takes them; ``rows`` ``[batch]`` are those of one of them.

    ``orders`` are the axes of those tensors that the step wants in another order; see
    :class:`harness.program.plan.Plan`. ``many`` steps go into one call, if that is given. Where the
    backend cannot write into tensors, indices are given in place of one-hot rows, and
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
        # Those whose classes stay the last axis.
        self._early = {n: count for n, count in source.classes.items() if kept.get(n, True)}
        self._classes = {} if self._backend.rewrites else self._early
        self._given: Tensors = {}
        self._parts: list[Tensors] = []
        self._bytes = sum(array.nbytes for array in self._arrays(rows).values())
        self.many = many or (MANY_SMALL if MANY_SMALL * self._bytes <= SMALL else MANY)

    def batch(self, rows: Rows, step: int = 0) -> Tensors:
        """The tensors of some rows ``[batch]`` at a step, or of batches ``[steps, batch]`` from
        that on."""
        tensor = self._backend.tensor
        return {name: tensor(array) for name, array in self._arrays(rows, step).items()}

    def expand(self, batch: Tensors) -> Tensors:
        """A batch of :meth:`batch` or :meth:`each` with all that is to be one-hot in that form."""
        if not self._classes:
            return batch
        one_hot, dtype = self._backend.primitives["one_hot"], self._session.dtype
        made = {n: one_hot(batch[n], classes, dtype) for n, classes in self._classes.items()}
        return {**batch, **made}

    def batches(self, rows: Rows, stacked: bool, step: int = 0) -> Iterator[tuple[Tensors, bool]]:
        """The batches of rows ``[steps, batch]`` from a step on, and whether each is a stack of
        :attr:`many`."""
        done = 0
        while stacked and len(rows) - done >= self.many:
            yield self.batch(rows[done : done + self.many], step + done), True
            done += self.many
        if done < len(rows):
            for batch in self.each(rows[done:], step + done):
                yield batch, False

    def each(self, rows: Rows, step: int = 0) -> Iterator[Tensors]:
        """One batch after the other of rows ``[steps, batch]``; each must be used before the next.

        A backend that can write into tensors gets many batches at once, always in the same memory:
        an executor then knows its inputs, and nothing is left to do for the single step.
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
        """The parts that hold these batches now: all, or as many as there are batches."""
        fill = self._backend.fill
        parts = self._parts[: len(next(iter(arrays.values())))]
        for name, array in arrays.items():
            if len(parts) == len(self._parts):
                fill(self._given[name], array)
            else:
                for part, single in zip(parts, array, strict=True):
                    # Of no axes numpy gives a number, and no array.
                    fill(part[name], np.asarray(single))
        return parts

    def _arrays(self, rows: Rows, step: int = 0) -> ArrayDict:
        """What is to be one-hot is put in order before, while it is small."""
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
    """A source of batches that are there: by ``inputs`` and ``targets``, all of one shape."""

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
        """The batches of some numbers, their noise among them: ``rows`` are ``[..., 1]``."""
        return {name: array[rows[..., 0]] for name, array in self._arrays.items()}

    def expand(self, name: str, taken: Array) -> Array:
        """The same."""
        return taken


class _Steps(NamedTuple):
    """Steps, and what they are given."""

    loop: StepLoop
    loader: Loader


class TrainingSteps:
    """A session that trains at the speed of a pipeline: compiled steps, several in a call where
    the backend has a way, batches written into memory that is used again.

    ``state`` is that of the next step, and ``count`` how many steps were made; both hold after
    :meth:`store`. ``many`` is how many steps go into one call, if not as pays for the batch.
    """

    def __init__(self, session: Session, source: BatchSource, many: int | None = None) -> None:
        self.session, self.source, self.many = session, source, many
        self.state: Tensors = {}
        self.count = 0
        self._made: dict[Any, _Steps] = {}
        self._carry = Carry()

    def begin(self, state: Tensors, count: int = 0) -> None:
        """Go on from what the session has loaded, and from a state."""
        self.state, self.count = state, count
        self._carry.carried = {}

    def run(self, rate: float, rows: Rows) -> float:
        """Steps on batches of one size, whose rows are ``[steps, batch]``; the sum of losses."""
        loop, loader = self._steps(rate, rows[0])
        self._carry.carried[TOTAL] = self.session.scalar(0.0)
        batches = loader.batches(rows, loop.several is not None, self.count)
        loop.run(self._carry, batches)
        self.count += len(rows)
        return float(self.session.array(self._carry.carried[TOTAL], "the sum of losses"))

    def store(self) -> None:
        """Put what is carried back into the session."""
        if self._carry.carried:
            store(self.session, self._carry.carried)
            self.session.steps = self._updates()
            self.state = {n: t for n, t in self._carry.carried.items() if n.startswith("state.")}
            self._carry.carried = {}

    def left(self) -> Snapshot:
        """All that a training goes on from, as arrays: neutral ``parameters``, ``statistics`` and
        ``slots``, the ``state``, the number of ``steps`` made, and in float16 the ``scaling`` of
        the loss."""
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
        """Go on from what :meth:`left` returned; its slots, state and scaling may be empty, and are
        then as :meth:`.session.Session.load` makes them."""
        session, scaling, steps = self.session, left["scaling"], left["steps"]
        session.load(left["parameters"], left["statistics"])
        if left["slots"]:
            session.load_slots(left["slots"], steps)
        session.steps = steps  # which a schedule counts, slots or none
        if scaling:
            session.scaling = {n: session.scalar(float(scaling[n])) for n in session.scaling}
            session.steps = int(scaling[UPDATES])
        floats = {f"state.{n}": session.float_tensor(a) for n, a in left["state"].items()}
        self.begin(floats, steps)

    def _updates(self) -> int:
        """How many steps the optimizer has made: all, but for those that float16 left out."""
        if not self.session.scales:
            return self.count
        return steps_made(self.session.array(self._carry.carried[STEP], STEP))

    def _steps(self, rate: float, rows: Rows) -> _Steps:
        """The step at a learning rate, for a batch like these rows; what is carried suits it."""
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
    """A step of what the loader gives; of its results only what is carried is of interest."""

    def expanding(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
        return advance(carried, fixed, loader.expand(batch))[0], {}

    return expanding
