"""Training of a session on batches that are made when they are needed. This code runs in the
worker."""

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

# Bytes of the batches that a backend gets in one piece.
GIVEN = 1 << 21
# The number of steps in one call, if a backend can make several. Small batches use MANY_SMALL,
# because the overhead of a call costs more than their steps. Batches are small if MANY_SMALL of
# them have at most SMALL bytes.
MANY, MANY_SMALL, SMALL = 8, 64, 1 << 20

Rows = Array


class BatchSource(Protocol):
    """A source of batches. A batch is selected by the numbers of its rows (examples)."""

    @property
    def classes(self) -> Mapping[str, int]:
        """A dictionary from array name to number of classes, for each one-hot array that the source
        can also return as indices."""

    def batch(self, rows: Rows, compact: Collection[str] = (), step: int | None = None) -> Arrays:
        """Return the arrays of some rows, with names such as ``input.x`` and ``target.y``.

        ``rows`` are row numbers of a shape ``[..., batch]``, e.g. ``[steps, batch]``; the arrays
        begin with these axes. One-hot arrays whose names are in ``compact`` are returned as
        indices. If ``step``, the number of the first step (from 0), is given, the result includes
        the model's noise for these steps.
        """

    def expand(self, name: str, taken: Array) -> Array:
        """Return the indices ``taken`` as one-hot vectors, if the input or target ``name`` is
        one-hot; else return ``taken`` unchanged."""


class Loader:
    """A converter of a source's batches to tensors, with their axes in the order that a training
    step needs.

    ``rows`` ``[batch]`` are the rows of an example batch. ``orders`` maps the name of each tensor
    whose axes must be permuted to the order of its axes; see :class:`harness.program.plan.Plan`.
    ``many`` is the number of steps in one call. If the backend cannot write into tensors, batches
    hold indices instead of one-hot vectors, and the step itself calls :meth:`expand`.
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
        classes_last = {n: axes[-1] == len(axes) - 1 for n, axes in self._orders.items()}
        # One-hot arrays in which the classes remain the last axis.
        self._early = {n: count for n, count in source.classes.items() if classes_last.get(n, True)}
        self._classes = {} if self._backend.rewrites else self._early
        self._given: Tensors = {}
        self._parts: list[Tensors] = []
        self._bytes = sum(array.nbytes for array in self._arrays(rows).values())
        self.many = many or (MANY_SMALL if MANY_SMALL * self._bytes <= SMALL else MANY)

    def batch(self, rows: Rows, step: int = 0) -> Tensors:
        """Return the tensors for one step if ``rows`` has the shape ``[batch]``, or for several
        steps if it has the shape ``[steps, batch]``.

        ``step`` is the number of the first of these steps.
        """
        tensor = self._backend.tensor
        return {name: tensor(array) for name, array in self._arrays(rows, step).items()}

    def expand(self, batch: Tensors) -> Tensors:
        """Return a batch of :meth:`batch` or :meth:`each`, in which one-hot vectors replace
        indices."""
        if not self._classes:
            return batch
        one_hot, dtype = self._backend.primitives["one_hot"], self._session.dtype
        expanded = {n: one_hot(batch[n], classes=k, dtype=dtype) for n, k in self._classes.items()}
        return {**batch, **expanded}

    def batches(self, rows: Rows, stacked: bool, step: int = 0) -> Iterator[tuple[Tensors, bool]]:
        """Yield the batches of rows ``[steps, batch]``, each with a flag. With ``stacked``, several
        batches may be stacked for one call. ``step`` is the number of the first step.

        The flag is True if the batch is a stack of :attr:`many` batches.
        """
        done = 0
        while stacked and len(rows) - done >= self.many:
            yield self.batch(rows[done : done + self.many], step + done), True
            done += self.many
        if done < len(rows):
            for batch in self.each(rows[done:], step + done):
                yield batch, False

    def each(self, rows: Rows, step: int = 0) -> Iterator[Tensors]:
        """Yield the batches of rows ``[steps, batch]`` one by one. ``step`` is the number of the
        first step. The next batch may overwrite the previous one, so use each batch before asking
        for the next.

        If a backend can write into tensors, many batches are written at once, always to the same
        memory. An executor has already bound its calls to this memory, so it need not copy its
        inputs.
        """
        if not self._backend.rewrites:
            yield from (self.batch(row, step + number) for number, row in enumerate(rows))
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
        """Write some batches into the tensors that are used again and again; return these tensors,
        one dictionary per batch."""
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
        """Return the arrays of ``rows`` by name, with their axes in the order that the step needs.

        Indices are put in this order before they become one-hot vectors, because they are smaller.
        """
        arrays, lead = {}, rows.ndim - 1
        for name, array in self._source.batch(rows, self._early, step).items():
            axes = self._orders.get(name)
            if axes is not None:
                order = axes[:-1] if name in self._early else axes
                array = array.transpose((*range(lead), *(lead + axis for axis in order)))
            late = name in self._early and name not in self._classes
            arrays[name] = self._source.expand(name, array) if late else array
        return arrays


class ListedBatches:
    """A source of batches from a list. Each batch has ``inputs`` and ``targets``, and all have
    equal shapes."""

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
        """Return the batches whose indices in the list are ``rows`` ``[..., 1]``. Their arrays
        include the noise."""
        return {name: array[rows[..., 0]] for name, array in self._arrays.items()}

    def expand(self, name: str, taken: Array) -> Array:
        """Return ``taken`` unchanged, because this source has no arrays as indices."""
        return taken


class _Steps(NamedTuple):
    loop: StepLoop
    loader: Loader


class TrainingSteps:
    """A session that trains fast: one call of the framework makes several steps, and memory is
    reused.

    ``state`` is the state before the next step, and ``count`` the number of steps made so far. Both
    are up to date only after :meth:`store`. ``many`` is the number of steps in one call; if it is
    None, it depends on the size of a batch.
    """

    def __init__(self, session: Session, source: BatchSource, many: int | None = None) -> None:
        self.session, self.source, self.many = session, source, many
        self.state: Tensors = {}
        self.count = 0
        self._compiled_steps: dict[Any, _Steps] = {}
        self._carry = Carry()

    def begin(self, state: Tensors, count: int = 0) -> None:
        """Continue from ``state`` and from the values that the session has loaded. ``count`` is the
        number of steps that were made before."""
        self.state, self.count = state, count
        self._carry.carried = {}

    def run(self, rate: float, rows: Rows) -> float:
        """Make one step for each row of ``rows`` ``[steps, batch]``, at the learning rate ``rate``;
        return the sum of the losses."""
        loop, loader = self._steps(rate, rows[0])
        self._carry.carried[TOTAL] = self.session.scalar(0.0)
        batches = loader.batches(rows, loop.several is not None, self.count)
        loop.run(self._carry, batches)
        self.count += len(rows)
        return float(self.session.array(self._carry.carried[TOTAL], "the sum of losses"))

    def store(self) -> None:
        """Put the tensors that the last step returned back into the session, so that they can be
        read."""
        if self._carry.carried:
            store(self.session, self._carry.carried)
            self.session.steps = self._updates()
            self.state = {n: t for n, t in self._carry.carried.items() if n.startswith("state.")}
            self._carry.carried = {}

    def snapshot(self) -> Snapshot:
        """Return all current values of the training, from which :meth:`resume` continues it.

        The result is a dictionary: ``parameters``, ``statistics`` and ``slots`` have arrays by the
        spec's names, ``state`` has the model's state, and ``scaling`` the loss scale (only in
        float16). ``steps`` is the number of steps made.
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

    def resume(self, snapshot: Mapping[str, Any]) -> None:
        """Continue a training from ``snapshot``, a result of :meth:`snapshot`.

        If the slots or the scaling are empty, they get their initial values.
        """
        session, scaling, steps = self.session, snapshot["scaling"], snapshot["steps"]
        session.load(snapshot["parameters"], snapshot["statistics"])
        if snapshot["slots"]:
            session.load_slots(snapshot["slots"], steps)
        session.steps = steps  # a learning-rate schedule needs them even without slots
        if scaling:
            session.scaling = {n: session.scalar(float(scaling[n])) for n in session.scaling}
            session.steps = int(scaling[UPDATES])
        floats = {f"state.{n}": session.float_tensor(a) for n, a in snapshot["state"].items()}
        self.begin(floats, steps)

    def _updates(self) -> int:
        """Return how often the optimizer has changed the parameters: the number of steps without
        those that float16 skipped."""
        if not self.session.scales:
            return self.count
        return steps_made(self.session.array(self._carry.carried[STEP], STEP))

    def _steps(self, rate: float, rows: Rows) -> _Steps:
        """Return the compiled step for this learning rate and batch size, with its loader. Later
        calls return the same objects."""
        key = (rate, len(rows))
        if key not in self._compiled_steps:
            self.store()
            backend = self.session.backend
            plain = Loader(self.session, self.source, rows)
            example = plain.expand(plain.batch(rows))
            step = make_step(self.session, "train", example, self.state, rate, total=True)
            loader = Loader(self.session, self.source, rows, step.orders, self.many)
            advance = _with_expansion(step.advance, loader)
            self._compiled_steps[key] = _Steps(StepLoop.of(backend, advance), loader)
            self._begin = step.begin
        if not self._carry.carried:
            self._carry = Carry(*self._begin(self.state))
        return self._compiled_steps[key]


def _with_expansion(advance: Advance, loader: Loader) -> Advance:
    """Return a step that first converts the indices in a batch to one-hot vectors, then runs
    ``advance``. It returns only the tensors that go to the next step."""

    def expanding(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
        return advance(carried, fixed, loader.expand(batch))[0], {}

    return expanding
