"""Test cases. A case is one model at fixed sizes, with random test arrays and the oracle's results
for them.

The oracle computes its results once, and the checks of all backends, dtypes and paths share them.
:mod:`harness.oracle.yardstick` measures the rounding noise of these results.
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
from harness.oracle.kinks import SEEDS_TRIED, Drawing, draw_off_kinks
from harness.oracle.oracle import Oracle
from harness.oracle.time_limit import OracleFault, this_run, within_limits
from harness.oracle.tolerance import PRECISION, ROUNDOFF, scales
from harness.oracle.user_arrays import UserArrays
from harness.oracle.yardstick import FAST, FEW, OTHERS, Expected, Reference, Run
from harness.program.builder import Builder
from harness.program.dims import resolve_shape
from harness.program.ir import Phase, Program
from harness.program.serial import digest
from harness.program.signature import crossing_ports, group_of
from harness.program.updates import UpdateRule
from harness.runtime.answers import Arguments, Misfit
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session, value_places, without_number

# A loss for a program that has no loss, so that gradients can be computed.


def with_loss(program: Program) -> Program:
    """Return the program with a loss. If the program has no loss, take the mean square of each
    output, and use the sum of these means. Integer and boolean outputs are cast to floats and get
    no gradient."""
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


# Memory and time for each number of a model (see `entries_of`): the additional peak memory of the
# oracle, and a lower limit of the seconds to draw and run the model on any machine. Measured: 5 to
# 32 bytes, and 1.6e-8 seconds on the fastest machine.
BYTES = 32
SECONDS = 1e-8
# A model with more numbers than this is measured with fewer orders of summation.
LARGE = 100_000
# In a model with more numbers than this, some value is near a kink with every seed, so only one
# seed is tried, and only fast orders of summation are run. All shipped models are smaller.
HUGE = 2_000_000


def programs_of(spec: Spec, sizes: Mapping[str, int]) -> tuple[Program, Program]:
    """Return two programs of a spec: for training, with a loss, and for inference. ``sizes`` has
    the sizes that differ from the spec, e.g. ``{"hidden": 7}``."""
    sizes_of_spec = {n: v for n, v in sizes.items() if n in spec.model.sizes}
    training = with_loss(spec.program("training", **sizes_of_spec))
    return training, spec.program("inference", **sizes_of_spec)


class Case:
    """A model at fixed sizes, its test arrays (``material``), and the oracle's results for these
    arrays.

    ``sizes`` override the sizes in the spec. ``drawing`` is the function that draws the random test
    arrays. By default the drawn arrays avoid all kinks (points at which a derivative jumps), and
    the user's arrays (``given``) replace the drawn arrays. If the model has no loss, the loss is
    the sum of the mean squares of its outputs.
    """

    def __init__(
        self,
        spec: Spec,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        seed: int = 0,
        given: UserArrays | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        self.given = given
        self.spec, self.batch, self.time = spec, batch, time
        self.training, self.inference = programs_of(spec, sizes)
        self.entries = entries_of(self.training, batch, time)
        self._expected: dict[Any, Expected] = {}
        self._arguments: dict[str, Arguments] = {}
        # The last error for lack of time or memory, and the run of the harness that had it.
        self._fault: tuple[OracleFault, object] | None = None
        self._lock = threading.RLock()
        self._reference = Reference(
            self.training,
            self.inference,
            orders=FAST if self.entries > HUGE else FEW if self.entries > LARGE else OTHERS,
            guard=self._exclusive,
        )
        with within_limits(self.entries * BYTES, self.entries * SECONDS):
            tries = 1 if self.entries > HUGE else SEEDS_TRIED
            drawing = drawing or partial(
                draw_off_kinks, batch=batch, time=time, given=given, tries=tries
            )
            self.seed, self.material = drawing(self.training, self.inference, seed)
            if self.entries > HUGE and given is None:
                # Drawn parameters are exact in float32, which needs half the memory.
                singles = {n: a.astype(np.float32) for n, a in self.material.parameters.items()}
                self.material = replace(self.material, parameters=singles)
            self.cotangents = cotangents(self.training, batch, time, self.seed)

    @property
    def sizes_text(self) -> str:
        """A text that lists all sizes, e.g. ``batch 3, time 4, hidden 7``."""
        every = {"batch": self.batch, "time": self.time, **self.training.sizes}
        return ", ".join(f"{name} {size}" for name, size in every.items())

    def program(self, phase: Phase) -> Program:
        """Return the model's program for the phase "training" or "inference"."""
        return self.training if phase == "training" else self.inference

    def batch_of(self, batch: int, time: int, seed: int = 1) -> Arguments:
        """Return test arrays with a newly drawn batch of ``batch`` examples and ``time`` steps. The
        parameters and statistics are those of ``material``."""
        with within_limits(self.entries * BYTES):
            other = draw(self.training, batch, time, self.seed + 7919 * seed, rotation=seed)
        return self.material.with_batch(other)

    def cached_arguments(self, key: str, compute: Callable[[], Arguments]) -> Arguments:
        """Return the test arrays that are cached under ``key``. The first call for a key computes
        them by ``compute``."""
        with self._lock:
            if key not in self._arguments:
                self._arguments[key] = compute()
            return self._arguments[key]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let only one thread at a time run the oracle during the ``with`` block.

        If the oracle lacked time or memory in an earlier call, raise the same error again, because
        a repeated computation would need as much again.
        """
        with within_limits(), self._lock:
            if self._fault is not None and self._fault[1] is this_run():
                raise self._fault[0]
            try:
                with within_limits(self.entries * BYTES):
                    yield
            except OracleFault as fault:
                self._fault = fault, this_run()
                raise

    def expect(self, key: Any, run: Callable[[Session], Mapping[str, Array]]) -> Expected:
        """Return the values that ``run(session)`` computes with the oracle's session, and the
        rounding noise of these values. The values are cached under ``key``.

        Raises:
            OracleFault: the oracle does not have enough time or memory.
        """
        return self._expect(key, lambda session: [run(session)])

    def _expect(self, key: Any, run: Run) -> Expected:
        with within_limits(), self._lock:
            if key not in self._expected:
                self._expected[key] = self._reference.expect(run)
            return self._expected[key]

    def forward(
        self, phase: Phase, material: Arguments, key: Any, targets: Arrays | None = None
    ) -> Expected:
        """Return the oracle's results of a forward pass on the arrays ``material``, cached under
        ``key``. With ``targets``, the results include the loss and the metrics."""

        def run(session: Session) -> Mapping[str, Array]:
            session.load(material.parameters, material.statistics)
            return session.forward(phase, material.inputs, material.state, targets)

        return self.expect(("forward", phase, key, targets is None), run)

    def gradients(
        self, material: Arguments, key: Any, along: Mapping[str, Array] | None = None
    ) -> Expected:
        """Return the results of a training pass on the arrays ``material`` together with its
        gradients, which have names such as ``gradient.out.W``. Without ``along``, these are
        gradients of the loss. Otherwise ``along`` maps each result to its cotangent (the gradient
        that flows into the backward pass). If a gradient is not finite, no gradient is compared:
        see :meth:`.Expected.of_finite_gradients`."""

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
        """Train one step per batch, starting from the arrays ``material``; return the
        :func:`step_values` of all steps. The number of the first step is ``start + 1``. The result
        is cached under ``key``."""

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

        return with_parameter_rounding(
            self._expect(("train", digest(rule), key, start), run), material.parameters
        )


def values_of_ports(program: Program, material: Arguments) -> dict[int, Array]:
    """Return a dictionary from value number to array, with the arrays of a program's parameters,
    statistics, inputs, states and targets. Ports without an array are left out."""
    groups: Mapping[str, Arrays] = {
        "": material.parameters,
        "input.": material.inputs,
        "target.": material.targets,
        "state.": material.state,
        "statistics.": material.statistics,
    }
    return {
        port.value: groups[prefix][port.name]
        for prefix, port in crossing_ports(program)
        if port.name in groups[prefix]
    }


def entries_of(program: Program, batch: int, time: int) -> int:
    """Return how many numbers a model has in memory during a forward pass: its parameters, its
    inputs, and all intermediate values."""
    free = {"batch": batch, "time": time}
    ports = (*program.parameters, *program.statistics, *program.inputs, *program.state)
    sizes = {**program.sizes, **free}
    outputs = (output for node in program.nodes for output in node.outputs)
    return sum(prod(program.shape(port, free)) for port in ports) + sum(
        prod(resolve_shape(program.types[output].shape, sizes)) for output in outputs
    )


def state_of(results: Mapping[str, Array]) -> dict[str, Array]:
    """Return the new state, as a dictionary from name to array, from the results of a forward pass
    (where the names are ``state.NAME``)."""
    return group_of(results, "state.")


def step_values(number: int, step: Mapping[str, Any], material: Arguments) -> dict[str, Array]:
    """Return the values to compare after a training step: a dictionary with names such as ``step 2:
    out.W moved``. The values are the loss, the change of each parameter since the start of
    training, the optimizer's slots, and the moving statistics. ``number`` is the step number, and
    ``material`` has the parameters at the start.

    The change of a parameter is compared, and not the parameter itself, because a step is much
    smaller than the parameter.
    """
    prefix = f"step {number}: "
    values = {f"{prefix}{n}": a for n, a in step["results"].items() if n == "loss"}
    for name, array in step["parameters"].items():
        values[f"{prefix}{name} moved"] = _change_of(array, material.parameters.get(name))
    values.update({f"{prefix}{n}": a for n, a in step["statistics"].items()})
    for slot, arrays in step["slots"].items():
        values.update({f"{prefix}{n} {slot}": a for n, a in arrays.items()})
    return values


def with_parameter_rounding(expected: Expected, parameters: Arrays) -> Expected:
    """Return expected training steps with more noise: the noise of each parameter's change becomes
    at least the rounding error of the parameter.

    This minimum is needed because the measured noise of a parameter with few numbers may be too
    small by chance.
    """
    sizes = {f"{n} moved": float(np.abs(a).max(initial=0.0)) for n, a in parameters.items()}

    @cache
    def measured(dtype: str) -> dict[str, float]:
        noise, scale = expected.measured(dtype), scales(expected.values)
        rounding_error = ROUNDOFF * PRECISION[host_dtype(dtype)]
        least_noise = {
            n: rounding_error * sizes.get(n.partition(": ")[2], 0.0) / scale[n] for n in noise
        }
        return {n: max(error, least_noise[n]) for n, error in noise.items()}

    return replace(expected, measured=measured)


def _change_of(array: Any, start: Array | None) -> Any:
    """Return the change of a parameter since the start of training, when it was ``start``. If the
    array has a wrong shape, return the array itself; the comparison then reports its shape."""
    if start is None or isinstance(array, Misfit) or array.shape != start.shape:
        return array
    change = np.asarray(array, np.float64) - start.astype(array.dtype).astype(np.float64)
    # For an array without axes, the difference is a numpy scalar.
    return np.asarray(change).astype(array.dtype)


__all__ = [
    "Case",
    "Expected",
    "entries_of",
    "programs_of",
    "state_of",
    "step_values",
    "values_of_ports",
    "with_parameter_rounding",
]


# Rejection of models whose compared values are all infinite or NaN.


def check_finite_results(case: Case) -> None:
    """Reject a model whose results are not finite, because they cannot be compared.

    Raises:
        UsageError: the loss is not finite in float64 for the arrays of the test case. For a model
            without a loss: an output has no finite entry.
    """
    if case.spec.model.loss is None:
        values = case.forward("inference", case.material, "main").values
        floats = {n: array for n, array in values.items() if array.size and array.dtype.kind == "f"}
        value_name = next((n for n, array in floats.items() if not np.isfinite(array).any()), "")
        name = value_name.partition(".")[2]
    else:
        values = case.gradients(case.material, "main").values
        value_name = name = "" if np.isfinite(values["loss"]) else "loss"
    if value_name:
        word = "NaN" if np.isnan(values[value_name]).any() else "infinite"
        problem = (
            f"{case.training.name}: {name} is {word} for the random inputs and weights of the check"
        )
        raise UsageError(
            f"{problem}, so no result can be compared{_first_non_finite(case)}; use --inputs and "
            "--weights to give numbers for which the results are finite"
        )


def _first_non_finite(case: Case) -> str:
    """Return a text for an error message: the first named value with an entry that is not finite,
    and its equation. Return "" if all entries are finite."""
    program, material = case.training, case.material
    session = Session(Oracle(), program, case.inference, path="equations", dtype="float64")
    session.load(material.parameters, material.statistics)
    with within_limits(), np.errstate(all="ignore"):
        trace = session.trace("training", material.inputs, material.state, material.targets)
    for name, _, array in trace:
        not_finite = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, np.bool_)
        if not_finite.any():
            place = value_places(program).get(without_number(name))
            where = f" ({place})" if place else ""
            many = (
                f"in {int(not_finite.sum()):,} of its {not_finite.size:,} entries"
                if not_finite.size > 1
                else ""
            )
            return f": the first value that is not finite is {name}{where} {many}".rstrip()
    return ""
