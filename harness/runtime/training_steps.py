"""Steps of training over batches that come as they are asked for. Runs inside the worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.program.plan import TOTAL
from harness.program.scaling import UPDATES
from harness.program.signature import group_of
from harness.runtime.loader import BatchSource, Loader, Rows
from harness.runtime.native import Advance, Tensors
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session
from harness.runtime.step import make_step, store
from harness.runtime.step_loop import Carry, StepLoop
from harness.runtime.updates import STEP, steps_made


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

    def left(self) -> dict[str, Any]:
        """All that a training goes on from, as arrays: neutral ``parameters``, ``statistics`` and
        ``slots``, the ``state``, the number of ``steps`` made, and in float16 the ``scaling`` of
        the loss."""
        self.store()
        session = self.session
        state = {n: session.array(t, n) for n, t in self.state.items()}
        scaling = {n: session.array(t, n) for n, t in session.scaling.items()}
        if session.scales:
            scaling[UPDATES] = np.asarray(session.steps, np.float32)
        kept = {"state": group_of(state, "state."), "scaling": scaling, "steps": self.count}
        return {**session.read(), **kept}

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
