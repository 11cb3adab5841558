"""The checks of a user's own model: outputs, gradients, repeated calls and different shapes.

All checks except ``values`` run inference, in which a model draws no noise and updates no
statistics. If the model does not accept a state, the state has its initial value. Noise inputs are
set to their mean in inference, and are random in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.checks.context import compare_results, list_differences, select_names
from harness.checking.checks.extremes import corner_material, saturated_material
from harness.checking.checks.properties import other_shapes
from harness.checking.first_difference import join_names
from harness.errors import UsageError
from harness.language.initial_values import reset_state
from harness.language.noise import mean_of
from harness.oracle.case import Case
from harness.oracle.tolerance import UNUSUAL, compare, prefixed
from harness.oracle.yardstick import Expected
from harness.program.signature import (
    group_of,
    length_ports,
    noise_ports,
    result_ports,
    variable_ports,
)
from harness.results.findings import Finding
from harness.runtime.answers import Arguments, Misfit
from harness.runtime.own_model.noise import NoiseMisfit
from harness.runtime.session import Session
from harness.worker.remote import Remote, Tensors, WorkerFault


@dataclass(frozen=True)
class ModelContext:
    """A user's model that a worker has loaded for the checks of ``case``. ``takes`` are the
    arguments of a call of the model, e.g. ``input.chars``. ``results`` are the results of the first
    call. ``statistics`` maps a name to the moving statistics of the model and of the spec after a
    training pass."""

    case: Case
    remote: Remote
    dtype: str
    path: str = "native"
    takes: tuple[str, ...] = ()
    differentiates: bool = True
    trains: bool = False
    results: dict[str, Array | Misfit] = field(default_factory=dict)
    statistics: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def material(self, material: Arguments, *, noisy: bool = False) -> Arguments:
        """Replace the state that the model does not accept by its initial value, and noise by its
        mean. With ``noisy``, noise stays random."""
        accepted = group_of(dict.fromkeys(self.takes), "state.")
        start = reset_state(self.case.inference, material.state)
        state = {n: a if n in accepted else start[n] for n, a in material.state.items()}
        means = {
            port.name: np.full_like(material.inputs[port.name], mean_of(port.init or {}))
            for port in noise_ports(self.case.training)
        }
        inputs = material.inputs if noisy else {**material.inputs, **means}
        return replace(material, inputs=inputs, state=state)

    @cached_property
    def _noise_trial(self) -> tuple[list[str], str]:
        """The names of the spec's noise inputs that the model does not accept, and the reason why
        training mode cannot be compared. The names are empty if the noise can replace the model's
        own random numbers, and the reason is empty if the model draws no others."""
        names = (port.name for port in noise_ports(self.case.training))
        rejected, reason = [name for name in names if f"input.{name}" not in self.takes], ""
        if rejected or self.trains:
            material = self.case.material
            arguments = {"inputs": material.inputs, "state": material.state}
            with suppress(WorkerFault):  # e.g. the process ended in an earlier check
                self.remote.load(material)
                trial = self.remote.outcome("forward", phase="training", **arguments)
                if trial.ok:
                    rejected = []
                elif rejected or trial.kind == NoiseMisfit.__name__:
                    reason = trial.message
        return rejected, reason

    @property
    def _reproduces(self) -> bool:
        """True if the model draws the spec's random numbers in a training pass, and no others."""
        return not any(self._noise_trial)

    @property
    def has_training(self) -> bool:
        """True if a training pass is compared. The spec must have moving statistics or noise. The
        model must accept the noise and update the statistics."""
        program = self.case.training
        if not (program.new_statistics or noise_ports(program)):
            return False
        return self._reproduces and (self.trains or not program.new_statistics)

    @property
    def takes_steps(self) -> bool:
        """True if optimizer steps can be compared: the model has gradients and no state, and takes
        the spec's noise in its training mode."""
        program = self.case.training
        if not self.differentiates or program.state:
            return False
        return self._reproduces and (self.trains or not program.new_statistics)

    def not_compared(self) -> list[str]:
        """List the parts of the spec that no check compares because the model does not accept or
        return them, e.g. ``training mode``."""
        program = self.case.inference
        state = [f"state.{p.name}" for p in program.state if f"state.{p.name}" not in self.takes]
        results = [n for n in result_ports(program, "forward") if "statistics." not in n]
        missing = [n.removeprefix("output.") for n in results if n not in self.results]
        rejected, reason = self._noise_trial
        because = f": {reason}" if reason else ""
        groups = (
            ("noise not accepted", rejected, because),
            ("state not accepted", state, ""),
            ("results not returned", missing if self.results else [], ""),
        )
        parts = [f"{what} ({', '.join(names)}{why})" for what, names, why in groups if names]
        mode = f"training mode ({reason})" if reason and not rejected else "training mode"
        trains = self.has_training or not (self.trains or self.case.training.new_statistics)
        parts += [] if trains else [mode]
        return parts if self.differentiates else [*parts, "gradients"]

    def forward(self, material: Arguments) -> Tensors:
        """Run inference on the batch in ``material``. The parameters must already be loaded."""
        material = self.material(material)
        return self.remote.forward("inference", material.inputs, material.state)

    def expected(self, material: Arguments, key: Any, results: Tensors) -> Expected:
        """Return the spec's values for the results that the model returns."""
        key = ("a user's model", self.takes, key)
        return select_names(self.case.forward("inference", self.material(material), key), results)

    def finding(self, check: str, results: Tensors, expected: Expected) -> Finding:
        """Compare results with the expected results, in the dtype of the cell.

        If a float64 model computes some values in float32, the tolerance is that of float32. The
        finding then has an excuse, which names these places of the model's code.
        """
        finding = compare_results(check, results, expected, self.dtype)
        if self.dtype != "float64" or all(d.agrees for d in finding.deviations):
            return finding
        noise = expected.noise("float32")
        deviations = compare(results, expected.values, noise, self.dtype)
        # A correct computation in float32 never reaches UNUSUAL yardsticks.
        if all(d.agrees and d.ratio < UNUSUAL for d in deviations) and self.narrow_places:
            places = join_names(self.narrow_places, most=3)
            excuse = f"the model computes in float32 ({places}), so float32's tolerance applies"
            return Finding(check, deviations, excuse=excuse, note=excuse)
        return finding

    @cached_property
    def narrow_places(self) -> Sequence[str]:
        """The places of the model's code that compute in a dtype narrower than float64."""
        try:
            material = self.material(self.case.material)
            arguments = {"inputs": material.inputs, "state": material.state}
            places: list[str] = self.remote.call("narrow_places", **arguments)
        except WorkerFault:  # the framework cannot run this pass; the comparison stays as it is
            return ()
        return places


ModelCheck = Callable[[ModelContext], Iterator[Finding]]


def inference(context: ModelContext) -> Iterator[Finding]:
    """Compare the outputs and the new state of the model in inference."""
    material = context.case.material
    context.remote.load(material)
    results = context.forward(material)
    context.results.update(results)
    yield context.finding("inference", results, context.expected(material, "main", results))


def cotangents(context: ModelContext) -> Iterator[Finding]:
    """Compare the gradients of parameters, float inputs and state along a random direction of the
    results."""
    if context.differentiates:
        yield compare_gradients(context, context.case.material, "main")


def compare_gradients(context: ModelContext, material: Arguments, key: str) -> Finding:
    """Compare gradients as the check ``cotangents``, for the arrays in ``material``. ``key`` is a
    name of these arrays for the cache of expected values."""
    case, material = context.case, context.material(material)
    context.remote.load(material)
    results = context.remote.gradients(material, case.cotangents, "inference")
    program = case.inference
    along: dict[str, Array] = {
        name: case.cotangents[name] if name in results else np.zeros_like(case.cotangents[name])
        for name in result_ports(program, "forward")
        if name in case.cotangents
    }

    def run(session: Session) -> Arrays:
        session.load(material.parameters, material.statistics)
        inputs, state = material.inputs, material.state
        results, gradients = session.gradients("inference", inputs, state, {}, along)
        return results | {f"gradient.{n}": a for n, a in gradients.items()}

    returned = sorted(n for n in results if not n.startswith("gradient."))
    expected = case.expect(("a user's model", "gradients", key, context.takes, *returned), run)
    crossing = ("input.", "state.")
    expected_names = {
        f"gradient.{n}": None
        for n in variable_ports(program)
        if not n.startswith(crossing) or n in context.takes
    }
    gradients = {n: a for n, a in results.items() if n.startswith("gradient.")}
    return context.finding("cotangent-gradients", gradients, select_names(expected, expected_names))


def without_empty_rows(case: Case) -> Arguments | None:
    """Return the arrays of a case in which rows of length 0, or of a mask without True, have the
    full length; None if the case has no such rows."""
    program, inputs = case.inference, dict(case.material.inputs)
    for port in program.inputs:
        array = inputs[port.name].copy()
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        empty = ~rows.any(axis=1)
        if not empty.any() or not (port in length_ports(program) or array.dtype.kind == "b"):
            continue
        rows[empty] = array.max()
        inputs[port.name] = array
    changed = any(inputs[n] is not array for n, array in case.material.inputs.items())
    return replace(case.material, inputs=inputs) if changed else None


def values(context: ModelContext) -> Iterator[Finding]:
    """Compare a training pass if the spec has moving statistics, or noise that the model accepts.
    The pass uses the statistics of the batch and random noise. The new moving statistics are also
    compared."""
    case = context.case
    if not context.has_training:
        return
    material = context.material(case.material, noisy=True)
    context.remote.load(material)
    results = context.remote.forward("training", material.inputs, material.state)
    key = ("a user's model", context.takes, "training")
    expected = select_names(case.forward("training", material, key), results)
    statistics = {n: a for n, a in results.items() if n.startswith("statistics.")}
    outputs = {n: a for n, a in results.items() if n not in statistics}
    yield context.finding("outputs", outputs, select_names(expected, outputs))
    if not case.training.new_statistics:
        return
    expected_statistics = select_names(expected, statistics)
    pairs = {n: (statistics[n], a) for n, a in expected_statistics.values.items()}
    context.statistics.update(
        {n: (m, a) for n, (m, a) in pairs.items() if isinstance(m, np.ndarray)}
    )
    yield context.finding("statistics", statistics, expected_statistics)


# Factor of float inputs that saturates activations.
FAR = 4.0
# The least rounding noise at saturated activations, where a different order of the same operations
# can change a float32 result by this amount.
ROUNDING = 64 * 2.0**-24


def saturation(context: ModelContext) -> Iterator[Finding]:
    """Compare outputs at saturated activations, because some functions differ only for large
    arguments, e.g. above 6."""
    yield _compare_unusual(context, "saturation", far_material(context.case))


def far_material(case: Case) -> Arguments:
    """Return the arrays of a case with large weights and inputs, which saturate activations."""
    far = saturated_material(case)
    inputs = {n: a * FAR if a.dtype.kind == "f" else a for n, a in far.inputs.items()}
    return replace(far, inputs=inputs)


def corners(context: ModelContext) -> Iterator[Finding]:
    """Compare outputs at pre-activations that equal the biases."""
    yield _compare_unusual(context, "corners", corner_material(context.case))


def _compare_unusual(context: ModelContext, check: str, material: Arguments) -> Finding:
    context.remote.load(material)
    results = context.forward(material)
    return context.finding(
        check, results, context.expected(material, check, results).at_least(ROUNDING)
    )


def repeatability(context: ModelContext) -> Iterator[Finding]:
    """Check that a second call with the same arguments returns the same bits."""
    material = context.case.material
    context.remote.load(material)
    first, second = context.forward(material), context.forward(material)
    fault = (
        "{} differs in a second call with the same arguments: the model uses randomness that "
        "inference does not turn off, or keeps values between calls"
    )
    faults = list_differences(first, second, fault)
    yield Finding("repeatability", faults=faults, held=len(first) - len(faults))


def shapes(context: ModelContext) -> Iterator[Finding]:
    """Compare outputs at other batch sizes and lengths; raise :class:`WorkerFault` if the process
    ends."""
    case = context.case
    context.remote.load(case.material)
    finding = Finding("shapes")
    for batch, time in other_shapes(case):
        material = context.material(case.batch_of(batch, time))
        outcome = context.remote.outcome(
            "forward", phase="inference", inputs=material.inputs, state=material.state
        )
        if outcome.status not in ("ok", "error"):
            raise WorkerFault("forward", outcome)
        if not outcome.ok:
            cause = outcome.message if outcome.kind == UsageError.__name__ else outcome.cause
            finding.faults.append(f"batch {batch}, time {time}: {cause}")
            continue
        results = outcome.value
        expected = context.expected(material, (batch, time), results)
        part = context.finding("shapes", results, expected)
        finding.deviations += prefixed(f"batch {batch}, time {time}: ", part.deviations)
        finding.excuse, finding.note = finding.excuse or part.excuse, finding.note or part.note
    yield finding
