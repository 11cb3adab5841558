"""A case: one model at some sizes with its material, and what the oracle says of it.

Expected values are computed once and shared by all backends, dtypes and paths. With each comes
its noise: the error of numpy in float32 on the same equations, the largest over four orders of
summation, tensor by tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.draw import cotangents, draw
from harness.oracle.given import Given
from harness.oracle.oracle import ORDERS, TABLE, Oracle
from harness.oracle.patience import OracleFault, at_work
from harness.oracle.wavering import KINKS, Wavering
from harness.oracle.yardstick import Expected, Run, expect
from harness.program.dims import resolve_shape
from harness.program.ir import Phase, Program, UpdateRule
from harness.program.signature import group_of
from harness.runtime.arguments import Arguments
from harness.runtime.interpreter import Table
from harness.runtime.session import Session
from harness.runtime.tensors import Misfit
from harness.spec.model import Spec

# A comparison nearer than this (relative to its operands) may fall the other way in float32.
KINK_MARGIN = 1e-5
SEEDS_TRIED = 40
# For each number of a model: what the oracle takes at its peak beyond what it has taken before,
# and the least time to draw and walk with it on any machine. Measured: 60 to 100, and 3e-7.
BYTES = 64
SECONDS = 1e-7
# Of a model with more numbers, as those that are given may have, one order of summation must do.
LARGE = 1_000_000


class Case:
    """One model at some sizes, its material, and what the oracle says of it.

    ``sizes`` override the spec's; the material is drawn off all kinks, but for what is ``given``.
    """

    def __init__(
        self,
        spec: Spec,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        seed: int = 0,
        given: Given | None = None,
    ) -> None:
        self.given = given
        self.spec, self.batch, self.time = spec, batch, time
        known = {n: v for n, v in sizes.items() if n in spec.model.sizes}
        self.training = spec.program("training", **known)
        self.inference = spec.program("inference", **known)
        self.entries = entries_of(self.training, batch, time)
        self._known: dict[Any, Expected] = {}
        self._fault: OracleFault | None = None
        self._lock = threading.RLock()
        with at_work(self.entries * BYTES, self.entries * SECONDS):
            self.seed, self.material = self._draw(seed)
            self.cotangents = cotangents(self.training, batch, time, self.seed)

    def program(self, phase: Phase) -> Program:
        """The program at a phase."""
        return self.training if phase == "training" else self.inference

    def batch_of(self, batch: int, time: int, seed: int = 1) -> Arguments:
        """The same parameters with another batch."""
        with at_work(self.entries * BYTES):
            other = draw(self.training, batch, time, self.seed + 7919 * seed)
        return self.material.with_batch(other)

    def _draw(self, seed: int) -> tuple[int, Arguments]:
        best: tuple[float, int, Arguments] | None = None
        for number in range(seed * SEEDS_TRIED, (seed + 1) * SEEDS_TRIED):
            material = draw(self.training, self.batch, self.time, number)
            if self.given is not None:
                material = self.given.over(material)
            margin = kink_margin(self.training, material)
            if best is None or margin > best[0]:
                best = (margin, number, material)
            if margin >= KINK_MARGIN or (self.given and self.given.decides_forward):
                break
        assert best is not None
        return best[1], best[2]

    @cached_property
    def _sessions(self) -> list[Session]:
        programs = (self.training, self.inference)
        oracle = Session(Oracle(), *programs, path="derived", dtype="float64")
        chosen = ("nudged",) if self.given and self.entries > LARGE else ORDERS
        orders = [
            Session(Oracle(order), *programs, path="derived", dtype="float32") for order in chosen
        ]
        return [oracle, *orders]

    @cached_property
    def _yardsticks(self) -> list[tuple[Session, float]]:
        """The sessions in float32, and the share of each one's error that counts."""
        yardsticks = [(session, 1.0) for session in self._sessions[1:]]
        if self.given is not None:
            wavering = Session(
                Wavering(), self.training, self.inference, path="derived", dtype="float32"
            )
            yardsticks.append((wavering, 1 / KINKS))
        return yardsticks

    def expect(self, key: Any, run: Callable[[Session], Mapping[str, Array]]) -> Expected:
        """The values of ``run`` on the oracle, and how far float32 strays; cached under ``key``.

        Raises:
            OracleFault: there is not the time or the memory; for every later call, too.
        """
        return self._expect(key, lambda session: [run(session)])

    def _expect(self, key: Any, run: Run) -> Expected:
        """As :meth:`expect`; of several parts, those in float32 are held one at a time."""
        with at_work(), self._lock:
            if self._fault is not None:
                raise self._fault
            if key not in self._known:
                try:
                    with at_work(self.entries * BYTES):
                        self._known[key] = expect(run, self._sessions[0], self._yardsticks)
                except OracleFault as fault:
                    self._fault = fault
                    raise
            return self._known[key]

    def forward(self, phase: Phase, material: Arguments, key: Any) -> Expected:
        """Results of a forward pass without targets."""

        def run(session: Session) -> Mapping[str, Array]:
            session.load(material.parameters, material.statistics)
            return session.forward(phase, material.inputs, material.state)

        return self.expect(("forward", phase, key), run)

    def gradients(
        self, material: Arguments, key: Any, along: Mapping[str, Array] | None = None
    ) -> Expected:
        """Results, and ``gradient.NAME``, in training."""

        def run(session: Session) -> Mapping[str, Array]:
            session.load(material.parameters, material.statistics)
            results, gradients = session.gradients(
                "training", material.inputs, material.state, material.targets, along
            )
            return results | {f"gradient.{n}": g for n, g in gradients.items()}

        return self.expect(("gradients", key, along is None), run)

    def train(
        self, rule: UpdateRule, batches: Sequence[Mapping[str, Any]], material: Arguments, key: Any
    ) -> Expected:
        """Every step's :func:`step_values`."""

        def run(session: Session) -> Iterator[Mapping[str, Array]]:
            session.use_rule(rule)
            session.load(material.parameters, material.statistics)
            state: Mapping[str, Array] = material.state
            for number, batch in enumerate(batches, start=1):
                results = session.step(
                    batch["inputs"], state, batch["targets"], batch["learning_rate"]
                )
                state = state_of(results)
                step = {"results": results, **session.read()}
                yield step_values(number, step, material)

        return self._expect(("train", rule.name, key), run)


def entries_of(program: Program, batch: int, time: int) -> int:
    """How many numbers a model has: its parameters, and the values of a forward pass."""
    free = {"batch": batch, "time": time}
    ports = (*program.parameters, *program.statistics, *program.inputs, *program.state)
    sizes = {**program.sizes, **free}
    kept = (output for node in program.nodes for output in node.outputs)
    return sum(prod(program.shape(port, free)) for port in ports) + sum(
        prod(resolve_shape(program.types[output].shape, sizes)) for output in kept
    )


def state_of(results: Mapping[str, Array]) -> dict[str, Array]:
    """The new state among results."""
    return group_of(results, "state.")


def step_values(number: int, step: Mapping[str, Any], material: Arguments) -> dict[str, Array]:
    """The values that a training step is compared by: loss, displacements, slots, statistics.

    Parameters are compared by how far they moved: a step is small beside the parameter, so a
    wrong one would hide behind it.
    """
    prefix = f"step {number}: "
    found = {f"{prefix}{n}": a for n, a in step["results"].items() if n == "loss"}
    for name, array in step["parameters"].items():
        found[f"{prefix}{name} moved"] = _moved(array, material.parameters.get(name))
    found.update({f"{prefix}{n}": a for n, a in step["statistics"].items()})
    for slot, arrays in step["slots"].items():
        found.update({f"{prefix}{n} {slot}": a for n, a in arrays.items()})
    return found


def _moved(array: Any, start: Array | None) -> Any:
    """How far a parameter has moved; what cannot have moved from there is left as it is, for the
    comparison to say so."""
    if start is None or isinstance(array, Misfit) or array.shape != start.shape:
        return array
    moved = np.asarray(array, np.float64) - start.astype(array.dtype).astype(np.float64)
    return moved.astype(array.dtype)


def kink_margin(program: Program, material: Arguments) -> float:
    """The smallest gap of any comparison in a forward pass, over the size of its operands."""
    gaps: list[float] = [np.inf]

    def watched(compare: Callable[..., Array]) -> Callable[[Array, Array], Array]:
        def run(a: Array, b: Array) -> Array:
            scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))), 1e-300)
            gaps.append(float(np.min(np.abs(np.subtract(a, b)))) / scale)
            return compare(a, b)

        return run

    compared = {op: watched(TABLE[op]) for op in ("less", "less_equal")}
    session = _Watched(program, {**TABLE, **compared})
    with at_work():
        session.load(material.parameters, material.statistics)
        session.forward("training", material.inputs, material.state)
    return min(gaps)


class _Watched(Session):
    def __init__(self, program: Program, table: Table) -> None:
        oracle = Oracle()
        oracle._table = table
        super().__init__(oracle, program, program, path="equations", dtype="float64")


__all__ = ["Case", "Expected", "entries_of", "kink_margin", "state_of", "step_values"]
