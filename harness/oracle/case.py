"""A case: one model at some sizes, its drawn arrays (the material), and the oracle's values.

Expected values are computed once and shared by all backends, dtypes and paths.
:mod:`harness.oracle.yardstick` measures their noise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.language.model import Spec
from harness.oracle.draw import cotangents, draw
from harness.oracle.given import Given
from harness.oracle.kinks import Drawing, drawn
from harness.oracle.oracle import Oracle
from harness.oracle.patience import OracleFault, at_work, this_run
from harness.oracle.tolerance import PRECISION, ROUNDOFF, scales
from harness.oracle.yardstick import FEW, OTHERS, Expected, Reference, Run
from harness.program.builder import Builder
from harness.program.dims import resolve_shape
from harness.program.ir import Phase, Program
from harness.program.serial import digest
from harness.program.signature import group_of
from harness.program.updates import UpdateRule
from harness.runtime.answers import Arguments, Misfit
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session, places, undistinguished

# A loss for a program without one, so that its derivatives can be computed.


def with_loss(program: Program) -> Program:
    """Return the program; without a loss, it gets the sum of each output's mean square. Indices and
    conditions are cast to floats, through which no derivative flows."""
    if program.loss is not None:
        return program
    builder = Builder(dict(program.types), dict(program.names), list(program.nodes))
    total = builder.constant(0.0)
    for port in program.outputs:
        value, type_ = port.value, program.type_of(port)
        if type_.kind != "float":
            value = builder.emit("astype", value)
        square = builder.emit("multiply", value, value)
        if type_.shape:
            square = builder.mean(square, range(len(type_.shape)), keepdims=False)
        total = builder.emit("add", total, square)
    return replace(program, types=builder.types, nodes=tuple(builder.nodes), loss=total)


# Per number of a model: the oracle's peak memory beyond what it has taken before, and the least
# time to draw and run it on any machine. Measured: 60 to 100 bytes, and 1.6e-8 seconds on the
# fastest machine.
BYTES = 64
SECONDS = 1e-8
# A model with more numbers gets only two orders of summation and random rounding.
LARGE = 100_000


class Case:
    """A model at some sizes, its material, and the oracle's values.

    ``sizes`` override the spec's. ``drawing`` draws the material; the default draws off all kinks
    and keeps what is ``given``. A model without a loss is trained on the mean squares of its
    outputs, so that all of them are compared.
    """

    def __init__(
        self,
        spec: Spec,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        seed: int = 0,
        given: Given | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        self.given = given
        self.spec, self.batch, self.time = spec, batch, time
        known = {n: v for n, v in sizes.items() if n in spec.model.sizes}
        self.training = with_loss(spec.program("training", **known))
        self.inference = spec.program("inference", **known)
        self.entries = entries_of(self.training, batch, time)
        self._known: dict[Any, Expected] = {}
        self._found: dict[str, Arguments] = {}
        # The last fault for lack of time or memory, and the run in which it happened.
        self._fault: tuple[OracleFault, object] | None = None
        self._lock = threading.RLock()
        self._reference = Reference(
            self.training,
            self.inference,
            orders=FEW if self.entries > LARGE else OTHERS,
            guard=self._guarded,
        )
        with at_work(self.entries * BYTES, self.entries * SECONDS):
            drawing = drawing or partial(drawn, batch=batch, time=time, given=given)
            self.seed, self.material = drawing(self.training, self.inference, seed)
            self.cotangents = cotangents(self.training, batch, time, self.seed)

    @property
    def sizes_text(self) -> str:
        """Text of all sizes: ``batch 3, time 4, hidden 7``."""
        every = {"batch": self.batch, "time": self.time, **self.training.sizes}
        return ", ".join(f"{name} {size}" for name, size in every.items())

    def program(self, phase: Phase) -> Program:
        """Return the program of a phase."""
        return self.training if phase == "training" else self.inference

    def batch_of(self, batch: int, time: int, seed: int = 1) -> Arguments:
        """Draw another batch for the same parameters."""
        with at_work(self.entries * BYTES):
            other = draw(self.training, batch, time, self.seed + 7919 * seed, turned=seed)
        return self.material.with_batch(other)

    def found_once(self, key: str, find: Callable[[], Arguments]) -> Arguments:
        """Return the material cached under ``key``; the first call gets it from ``find``."""
        with self._lock:
            if key not in self._found:
                self._found[key] = find()
            return self._found[key]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Run the oracle in one thread at a time; raise a fault again for the rest of its run. The
        next run may have more time or memory, or may not be interrupted."""
        with at_work(), self._lock:
            if self._fault is not None and self._fault[1] is this_run():
                raise self._fault[0]
            try:
                with at_work(self.entries * BYTES):
                    yield
            except OracleFault as fault:
                self._fault = fault, this_run()
                raise

    def expect(self, key: Any, run: Callable[[Session], Mapping[str, Array]]) -> Expected:
        """Return the values of ``run`` on the oracle, cached under ``key``.

        Raises:
            OracleFault: there is not enough time or memory; later calls of the run raise it again.
        """
        return self._expect(key, lambda session: [run(session)])

    def _expect(self, key: Any, run: Run) -> Expected:
        with at_work(), self._lock:
            if key not in self._known:
                self._known[key] = self._reference.expect(run)
            return self._known[key]

    def forward(
        self, phase: Phase, material: Arguments, key: Any, targets: Arrays | None = None
    ) -> Expected:
        """Return the results of a forward pass; with targets, also the loss and metrics."""

        def run(session: Session) -> Mapping[str, Array]:
            session.load(material.parameters, material.statistics)
            return session.forward(phase, material.inputs, material.state, targets)

        return self.expect(("forward", phase, key, targets is None), run)

    def gradients(
        self, material: Arguments, key: Any, along: Mapping[str, Array] | None = None
    ) -> Expected:
        """Return the training results, and the gradients as ``gradient.NAME``. If one gradient is
        not finite, none can be compared: see :meth:`.Expected.of_finite_gradients`."""

        def run(session: Session) -> Mapping[str, Array]:
            session.load(material.parameters, material.statistics)
            results, gradients = session.gradients(
                "training", material.inputs, material.state, material.targets, along
            )
            return results | {f"gradient.{n}": g for n, g in gradients.items()}

        return self.expect(("gradients", key, along is None), run).of_finite_gradients()

    def train(
        self,
        rule: UpdateRule,
        batches: Sequence[Mapping[str, Any]],
        material: Arguments,
        key: Any,
        start: int = 0,
    ) -> Expected:
        """Return the :func:`step_values` of every step; ``start`` steps count as made before."""

        def run(session: Session) -> Iterator[Mapping[str, Array]]:
            session.use_rule(rule)
            session.load(material.parameters, material.statistics)
            session.steps = start
            state: Mapping[str, Array] = material.state
            for number, batch in enumerate(batches, start=start + 1):
                results = session.step(
                    batch["inputs"], state, batch["targets"], batch["learning_rate"]
                )
                state = state_of(results)
                step = {"results": results, **session.read()}
                yield step_values(number, step, material)

        return beside_start(
            self._expect(("train", digest(rule), key, start), run), material.parameters
        )


def entries_of(program: Program, batch: int, time: int) -> int:
    """Count the numbers of a model: its parameters and the values of a forward pass."""
    free = {"batch": batch, "time": time}
    ports = (*program.parameters, *program.statistics, *program.inputs, *program.state)
    sizes = {**program.sizes, **free}
    kept = (output for node in program.nodes for output in node.outputs)
    return sum(prod(program.shape(port, free)) for port in ports) + sum(
        prod(resolve_shape(program.types[output].shape, sizes)) for output in kept
    )


def state_of(results: Mapping[str, Array]) -> dict[str, Array]:
    """Return the new state among results."""
    return group_of(results, "state.")


def step_values(number: int, step: Mapping[str, Any], material: Arguments) -> dict[str, Array]:
    """Return the values to compare after a training step: loss, displacements, slots, statistics.

    Parameters are compared by how far they moved. A step is small beside its parameter, so a wrong
    step would hide behind it.
    """
    prefix = f"step {number}: "
    found = {f"{prefix}{n}": a for n, a in step["results"].items() if n == "loss"}
    for name, array in step["parameters"].items():
        found[f"{prefix}{name} moved"] = _moved(array, material.parameters.get(name))
    found.update({f"{prefix}{n}": a for n, a in step["statistics"].items()})
    for slot, arrays in step["slots"].items():
        found.update({f"{prefix}{n} {slot}": a for n, a in arrays.items()})
    return found


def beside_start(expected: Expected, parameters: Arrays) -> Expected:
    """Give each displacement at least the rounding error of its parameter as noise. A displacement
    of few numbers may agree in all measuring runs by luck."""
    sizes = {f"{n} moved": float(np.abs(a).max(initial=0.0)) for n, a in parameters.items()}

    @cache
    def measured(dtype: str) -> dict[str, float]:
        noise, scale = expected.measured(dtype), scales(expected.values)
        one = ROUNDOFF * PRECISION[host_dtype(dtype)]
        least = {n: one * sizes.get(n.partition(": ")[2], 0.0) / scale[n] for n in noise}
        return {n: max(error, least[n]) for n, error in noise.items()}

    return replace(expected, measured=measured)


def _moved(array: Any, start: Array | None) -> Any:
    """Return how far a parameter moved; an array of the wrong form stays, for the comparison."""
    if start is None or isinstance(array, Misfit) or array.shape != start.shape:
        return array
    moved = np.asarray(array, np.float64) - start.astype(array.dtype).astype(np.float64)
    # Without axes the difference is a numpy scalar, not an array.
    return np.asarray(moved).astype(array.dtype)


__all__ = ["Case", "Expected", "beside_start", "entries_of", "state_of", "step_values"]


# Models whose compared values are all infinite or NaN.


def check_meaning(case: Case) -> None:
    """Reject a model that has nothing to compare.

    Raises:
        UsageError: the loss is not finite in float64 at the drawn numbers; or, in a model without a
            loss, no entry of an output is finite.
    """
    if case.spec.model.loss is None:
        values = case.forward("inference", case.material, "main").values
        floats = {n: array for n, array in values.items() if array.size and array.dtype.kind == "f"}
        found = next((n for n, array in floats.items() if not np.isfinite(array).any()), "")
        name = found.partition(".")[2]
    else:
        values = case.gradients(case.material, "main").values
        found = name = "" if np.isfinite(values["loss"]) else "loss"
    if found:
        word = "NaN" if np.isnan(values[found]).any() else "infinite"
        what = f"{case.training.name}: {name} is {word} at the numbers that are drawn"
        raise UsageError(
            f"{what}, so that nothing could be compared{_origin(case)}; --inputs and --weights "
            "take numbers at which the model means something"
        )


def _origin(case: Case) -> str:
    """Describe the first named value that is not finite and its equation; "" if there is none."""
    program, material = case.training, case.material
    session = Session(Oracle(), program, case.inference, path="equations", dtype="float64")
    session.load(material.parameters, material.statistics)
    with at_work(), np.errstate(all="ignore"):
        trace = session.trace("training", material.inputs, material.state, material.targets)
    for name, _, array in trace:
        off = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, np.bool_)
        if off.any():
            place = places(program).get(undistinguished(name))
            where = f" ({place})" if place else ""
            many = f"in {int(off.sum()):,} of its {off.size:,} entries" if off.size > 1 else ""
            return f": the first value that is not finite is {name}{where} {many}".rstrip()
    return ""
