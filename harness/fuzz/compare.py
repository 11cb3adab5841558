"""Run of a case on a backend, and comparison with the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import Batches, select_names
from harness.checking.checks.training import plan_steps
from harness.checking.reproducer import COTANGENT_GRADIENTS, INFERENCE, Failure, Pass
from harness.fuzz.cases import ORDINARY, SPECIAL, Draft
from harness.fuzz.models import NAME, needed
from harness.language.initializers import generator
from harness.oracle.case import Case, step_values
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit
from harness.oracle.tolerance import Deviation
from harness.oracle.yardstick import Expected
from harness.program.serial import encoded
from harness.program.updates import UpdateRule
from harness.results.cell import Cell
from harness.runtime.paths import COMPILED_PATHS
from harness.runtime.session import Session
from harness.worker.remote import Remote, Tensors, missing_requirement
from harness.worker.worker import Worker

T = TypeVar("T")
# Ways to run a pass: compiled, if the framework compiles, or one operation after the other, or on
# arrays with gaps and on transposed views.
COMPILED, EAGER, STRIDED = "compiled", "eager", "strided"
# The prefixes of the three results of :meth:`.SessionService.strided`.
LAYOUTS = ("gaps", "views", "training on gaps")
# A derivative of the compiled pass, computed forwards.
FORWARD_MODE = "forward mode"
TRAINING = "training"
CHECKS = (INFERENCE, COTANGENT_GRADIENTS, "gradients", "nan", TRAINING)
# Inputs are changed by this share of the largest entry to find kinks of a gradient, and a gradient
# that changes by more than SMOOTH of its largest entry is at a kink.
CHANGE, SMOOTH = 2.0**-20, 2.0**-10
# The least noise in float32; in float64 accordingly less. Backends may add hundreds of numbers one
# by one, compute a derivative by another formula, or divide by small numbers in training steps.
LEAST_NOISE = 2.0**-21
# One case in so many runs one operation after the other, because JAX then compiles each operation.
EAGER_CASES = 32


@dataclass(frozen=True)
class ModePass(Pass):
    """A pass that runs in one of several ways (``mode``)."""

    mode: str = COMPILED

    def run(self, remote: Remote) -> Tensors:
        """Run the pass, and return its results by name."""
        arguments = self.material
        if self.mode == EAGER:
            remote.load(arguments)
            values = remote.trace("inference", arguments)
            return {f"output.{name}": array for name, step, array in values if step is None}
        return super().run(remote)

    def expected(self, case: Case) -> Expected:
        """Return the oracle's results."""
        return super().expected(case).of_finite_gradients()

    def comparable(self, case: Case, expected: Expected, results: Tensors) -> Tensors:
        """Return the results with those entries that are compared."""
        return results


@dataclass(frozen=True, kw_only=True)
class SmoothPass(ModePass):
    """A pass that compares finite gradients, in entries that are not at a kink. Gradients of
    ``undefined`` inputs are not compared, because NaN is computed from them."""

    undefined: frozenset[str]

    def expected(self, case: Case) -> Expected:
        """Return the oracle's results, with gradients that are not finite."""
        return Pass.expected(self, case)

    def comparable(self, case: Case, expected: Expected, results: Tensors) -> Tensors:
        """Return the results. Entries at kinks are replaced by the expected entries. At a kink, the
        gradient differs if the inputs change a little in a random direction or its opposite."""
        changed = []
        for sign in (1, -1):
            inputs = {n: _change(n, a, sign) for n, a in self.material.inputs.items()}
            moved = replace(self, material=replace(self.material, inputs=inputs))
            changed.append(case.expect((self.check, sign), moved.run_in_session).values)
        compared = dict(results)
        for name, array, found in _arrays_of_equal_shape(expected, results):
            scale = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
            near = [np.abs(other[name] - array) <= SMOOTH * scale for other in changed]
            # Backends may compute 0 times infinity, or add numbers that are nearly too large.
            skipped = not np.isfinite(array).all() or scale > SMOOTH * np.finfo(found.dtype).max
            skipped |= name.split(".")[-1] in self.undefined
            smooth = np.all(near, axis=0) & (not skipped)
            compared[name] = np.where(smooth, found, array).astype(found.dtype)
        return compared


def _arrays_of_equal_shape(
    expected: Expected, results: Tensors
) -> Iterator[tuple[str, Array, Array]]:
    """Yield the name, the expected array and the backend's array of each result that has the
    expected shape."""
    for name, array in expected.values.items():
        found = results.get(name)
        if isinstance(found, np.ndarray) and found.shape == array.shape:
            yield name, array, found


def _change(name: str, array: Array, sign: int) -> Array:
    if array.dtype.kind != "f":
        return array
    largest = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
    moved: Array = array + sign * CHANGE * largest * generator(0, name).uniform(-1, 1, array.shape)
    return moved


@dataclass(frozen=True, kw_only=True)
class StridedPass(ModePass):
    """Inference on arrays with gaps in memory and on transposed views, and a training pass on
    arrays with gaps. ``training`` has the expected gradients of the loss. Names of results start
    with the layout, e.g. ``views: output.v0``."""

    mode: str = STRIDED
    training: SmoothPass

    def run(self, remote: Remote) -> Tensors:
        """Run the three computations, and return their results by name."""
        return _join(remote.call("strided", **vars(self.material)))

    def expected(self, case: Case) -> Expected:
        """Return the oracle's results."""
        forward = super().expected(case)
        parts = (forward, forward, self.training.expected(case))

        def measured(base: str) -> Mapping[str, float]:
            return _join([part.measured(base) for part in parts])

        return Expected(_join([part.values for part in parts]), measured)

    def comparable(self, case: Case, expected: Expected, results: Tensors) -> Tensors:
        """Return the results. In the training pass, entries at kinks are replaced by the expected
        entries."""
        prefix = f"{LAYOUTS[-1]}: "
        found = {n.removeprefix(prefix): a for n, a in results.items() if n.startswith(prefix)}
        compared = self.training.comparable(case, self.training.expected(case), found)
        return results | {f"{prefix}{name}": array for name, array in compared.items()}


def _join(parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """Return the values of the three computations of a :class:`StridedPass` in one dictionary."""
    both = zip(LAYOUTS, parts, strict=True)
    return {f"{layout}: {name}": value for layout, part in both for name, value in part.items()}


@dataclass(frozen=True)
class ForwardModePass(ModePass):
    """A pass that computes a directional derivative in forward mode. It is expected to be the sum
    of gradients times directions."""

    mode: str = FORWARD_MODE

    @property
    def directions(self) -> ArrayDict:
        """The direction of each float input, by the name of the variable."""
        return {
            f"input.{n}": generator(1, n).uniform(-1, 1, a.shape)
            for n, a in self.material.inputs.items()
            if a.dtype.kind == "f"
        }

    def run(self, remote: Remote) -> Tensors:
        """Return the derivative, or nothing if the framework has no forward mode."""
        remote.load(self.material)
        arrays = {"inputs": self.material.inputs, "state": self.material.state}
        along = {"cotangents": self.cotangents, "directions": self.directions}
        derivative: Tensors = remote.call("forward_derivative", phase=self.phase, **arrays, **along)
        return derivative

    def expected(self, case: Case) -> Expected:
        """Return the oracle's derivative as an array of two entries. The second entry is the sum of
        the absolute terms, so that this sum is the scale of errors."""

        def run(session: Session) -> Arrays:
            gradients = self.run_in_session(session)
            terms = [gradients[f"gradient.{n}"] * a for n, a in self.directions.items()]
            sums = [sum(np.sum(term) for term in each) for each in (terms, map(np.abs, terms))]
            return {"derivative": np.array(sums)}

        return case.expect((self.check, self.mode), run)

    def comparable(self, case: Case, expected: Expected, results: Tensors) -> Tensors:
        """Return the derivative with the expected second entry. If it is not finite, return the
        expected derivative: forward mode computes 0 times infinity where a gradient is cut."""
        found = np.asarray(results["derivative"])
        derivative, scale = expected.values["derivative"]
        both = np.array([found if np.isfinite(found) else derivative, scale])
        return {"derivative": both.astype(found.dtype)}


@dataclass(frozen=True, kw_only=True)
class TrainingPass(ModePass):
    """Training steps with the optimizer ``rule``. ``batches`` are the batch of each step, and
    ``steps`` are the oracle's results."""

    rule: UpdateRule
    batches: Batches
    steps: Expected

    def run(self, remote: Remote) -> Tensors:
        """Make the steps, and return their values by name."""
        remote.call("use_rule", rule=encoded(self.rule))
        remote.load(self.material)
        values: Tensors = {}
        for number, step in enumerate(remote.train(self.batches, self.material.state), start=1):
            values |= step_values(number, step, self.material)
        return values

    def expected(self, case: Case) -> Expected:
        """Return the oracle's results."""
        return self.steps


@dataclass
class CaseRunner:
    """A backend on one device and path, with a time limit of ``seconds`` for each case. ``layers``
    maps each layer of the last case to the code that ran it."""

    worker: Worker
    device: str
    path: str
    seconds: float
    layers: Mapping[str, str] = field(default_factory=dict)

    def cell(self, draft: Draft) -> Cell:
        """Return the cell in which a case runs."""
        return Cell(draft.name, self.worker.launch.backend, self.device, draft.dtype, self.path)

    def lacks(self, draft: Draft, case: Case) -> str:
        """Return a message if the backend does not offer something that the case needs."""
        programs = (case.training, case.inference)
        return missing_requirement(self.worker.hello or {}, self.device, draft.dtype, programs)

    @property
    def compiles(self) -> bool:
        """True if the path compiles whole passes. Their shapes and strides are then fixed."""
        return self.path in COMPILED_PATHS

    def failures(
        self, draft: Draft, case: Case, only: tuple[str, str] | None = None
    ) -> Iterator[tuple[Failure, list[Deviation]]]:
        """Run a case in every way, and yield each pass that differs, with its wrong results.
        ``only`` names the check and the mode of the only pass to run.

        Raises:
            WorkerFault: the backend raised an error, crashed, or took too long.
        """
        remote = Remote(self.worker, self.seconds)
        cell = self.cell(draft)
        programs = (case.training, case.inference)
        setting = (cell.path, cell.dtype, cell.device)
        self.layers = remote.open(*programs, None, *setting, compiled_whole=self.compiles)
        if draft.values == "denormal" and not remote.denormals:
            return
        for run in passes(draft, case):
            if only is not None and only[0] in CHECKS and only != (run.check, run.mode):
                continue
            if self.compiles and run.mode in (EAGER, STRIDED):
                continue
            wrong = self._compare(remote, run, case, cell.dtype)
            if wrong:
                yield Failure(cell, *programs, run), wrong

    def _compare(self, remote: Remote, run: ModePass, case: Case, dtype: str) -> list[Deviation]:
        """Run a pass, and return its wrong results."""
        try:
            with with_time_limit(TimeLimit(self.seconds)), np.errstate(all="ignore"):
                expected = run.expected(case).at_least(LEAST_NOISE)
                expected.noise(dtype)
        except OracleFault:  # the oracle needs more time than the backend may use
            return []
        results = run.run(remote)
        if run.mode == FORWARD_MODE and not results:  # the framework has none
            return []
        if run.mode == EAGER:  # a value with two names has only the first
            expected = select_names(expected, results)
        if not remote.denormals:
            results = _with_denormals(expected, results)
        with np.errstate(all="ignore"):
            results = run.comparable(case, expected, results)
        return [d for d in expected.deviations(results, dtype) if not d.agrees]


def _with_denormals(expected: Expected, results: Tensors) -> Tensors:
    """Return the results of a backend that replaces denormals by 0. Its zeros are replaced by the
    expected denormals."""
    complete = dict(results)
    for name, array, found in _arrays_of_equal_shape(expected, results):
        if found.dtype.kind == "f":
            denormal = (found == 0) & (np.abs(array) < np.finfo(found.dtype).tiny)
            complete[name] = np.where(denormal, array, found).astype(found.dtype)
    return complete


def _read_by_nan(draft: Draft, results: Arrays) -> frozenset[str]:
    """Return the names in those equations from which NaN is computed."""
    equations = draft.model.equations
    names = set()
    for number, equation in enumerate(equations):
        if np.isnan(results.get(f"output.{equation.partition(' = ')[0]}", 0.0)).any():
            names.update(NAME.findall(" ".join(needed(equations, number))))
    return frozenset(names)


def _gradient_passes(draft: Draft, case: Case, forward: Pass) -> Iterator[ModePass]:
    """Yield the passes that compare gradients of a chain of calls, also in forward mode if the
    values are ordinary and all gradients are finite."""
    every = ModePass(COTANGENT_GRADIENTS, "training", case.material, case.cotangents)
    gradients = Pass.expected(every, case).values.values()
    if draft.values == ORDINARY and all(np.isfinite(a).all() for a in gradients):
        yield every
        yield ForwardModePass(COTANGENT_GRADIENTS, "training", case.material, case.cotangents)
    else:
        undefined = _read_by_nan(draft, forward.expected(case).values)
        yield SmoothPass(
            COTANGENT_GRADIENTS, "training", case.material, case.cotangents, undefined=undefined
        )


def passes(draft: Draft, case: Case) -> Iterator[ModePass]:
    """Yield the passes in which a case is compared."""
    check = "nan" if draft.values == SPECIAL else INFERENCE
    forward = ModePass(check, "inference", case.material)
    yield forward
    if draft.number % EAGER_CASES == 0:
        yield replace(forward, mode=EAGER)
    if draft.kind == "calls":
        yield from _gradient_passes(draft, case, forward)
    if draft.values != ORDINARY:
        return
    if draft.kind != "calls":
        yield ModePass("gradients", "training", case.material)
    if draft.number % 4 == 0:
        undefined = _read_by_nan(draft, forward.expected(case).values)
        training = SmoothPass("gradients", "training", case.material, undefined=undefined)
        yield StridedPass(check, "inference", case.material, training=training)
    rule = case.spec.update
    if rule is not None and case.training.parameters:
        rate = rule.attributes["learning_rate"]
        batches, steps = plan_steps(case, rule, rate, draft.dtype)
        yield TrainingPass(
            TRAINING, "training", case.material, rule=rule, batches=batches, steps=steps
        )
