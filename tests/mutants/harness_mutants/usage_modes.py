"""Faults of one execution mode: in steps compiled for speed, in joint steps, or after a resume."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.program.plan import Plan
from harness.runtime.native import Advance, Tensors
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.extreme_values import Run
from harness_mutants.gradients import AlteredGradients
from harness_mutants.later_steps import STEPS, CountingSession
from harness_mutants.plans import CountingPlans
from harness_mutants.registry import BOTH, FLOAT64, Faulty

backend = partial(registry.backend, everywhere=True)
session = partial(registry.session, everywhere=True)


@backend("sequence_rnn", "large-sizes")
class BatchesWrittenAsBytes(Faulty):
    """Indices that overwrite other indices are truncated to a byte."""

    def fill(self, tensor: Any, array: Array) -> None:
        indices = array.dtype.kind == "i"
        super().fill(tensor, array.astype(np.uint8).astype(array.dtype) if indices else array)


@backend("sequence_rnn", STEPS)
class MomentsForgottenWhenFast(Faulty):
    """In steps compiled for speed, moments are zero at every step."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        if self.quick:
            return run
        return lambda inputs: run(
            {n: 0 * a if n.startswith(("m.", "v.")) else a for n, a in inputs.items()}
        )


@backend("stateful_lstm", STEPS)
class StatisticsStayWhenFast(Faulty):
    """In steps compiled for speed, moving statistics are not updated."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        if self.quick or "loss" not in plan.outputs:
            return run

        def stay(inputs: Tensors) -> Tensors:
            kept = {n: np.array(a) for n, a in inputs.items() if n.startswith("statistics.")}
            return {**run(inputs), **kept}

        return stay


@backend("first_rnn", STEPS, FLOAT64)
class NarrowWhenFast(Faulty):
    """In steps compiled for speed, all results are rounded to float32."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        if self.quick:
            return run
        return lambda inputs: {
            n: a.astype(np.float32).astype(a.dtype) for n, a in run(inputs).items()
        }


@backend("keras_gru", "pipeline-forward")
class OutputsLargerWhenFast(Faulty):
    """In passes compiled for speed, outputs are 1% too large. Training has no outputs."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        if self.quick:
            return run
        return lambda inputs: {
            n: a * a.dtype.type(1.01) if n.startswith("output.") else a
            for n, a in run(inputs).items()
        }


@session("simple_rnn", "nan", BOTH)
class GradientsWithoutNan(AlteredGradients):
    """NaN in a gradient is replaced by 0."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: np.where(np.isnan(g), 0, g).astype(g.dtype) for n, g in gradients.items()}


@session("first_rnn", STEPS, BOTH)
class StepsNotFiniteSkipped(CountingSession):
    """A step with an infinite or NaN gradient is skipped, as with loss scaling."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        fine = all(np.isfinite(g).all() for g in gradients.values())
        return super().update_wrongly(trained, gradients, rate) if fine else trained


@session("simple_rnn", STEPS, BOTH)
class SameBatchSkipped(Session):
    """A step on the same batch as the previous step does not change the parameters."""

    _last: Any = None

    def load(self, *arguments: Any) -> None:
        super().load(*arguments)
        self._last = None

    def step(self, inputs: Any, *others: Any) -> Any:
        key = {n: a.tobytes() for n, a in inputs.items()}
        if key != self._last:
            self._last = key
            return super().step(inputs, *others)
        kept = dict(self.variables)
        found = super().step(inputs, *others)
        self.variables.update(kept)
        return found


@backend("sequence_unrolled", STEPS)
class PlannedSameGradientSkipped(CountingPlans):
    """Plans only: a step on the same batch as the previous step does not change parameters."""

    last: Any = None

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        key = {n: np.asarray(a).tobytes() for n, a in inputs.items() if n.startswith("input.")}
        same, self.last = key == self.last, key
        kept = {n: np.array(a) for n, a in inputs.items() if n.endswith((".W", ".b"))}
        found = dict(run(inputs))
        return {**found, **{n: a for n, a in kept.items() if n in found}} if same else found


@session("first_rnn", STEPS, BOTH)
class LazyMoments(CountingSession):
    """Entries without a gradient do not move, whatever their moments."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        still = {n: gradients[n] == 0 for n in found}
        return {n: np.where(still[n], trained[n], a).astype(a.dtype) for n, a in found.items()}


@session("three_char", "training", FLOAT64)
class InferenceFromWhatWasLoaded(Session):
    """Inference uses the loaded parameters instead of the trained parameters."""

    _loaded: Tensors

    def load(self, *arguments: Any) -> None:
        super().load(*arguments)
        self._loaded = dict(self.variables)

    def forward(self, phase: Any, *arguments: Any) -> Any:
        made = dict(self.variables)
        if phase == "inference":
            self.variables = dict(self._loaded)
        found = super().forward(phase, *arguments)
        self.variables = made
        return found


@session("keras_gru", "training", FLOAT64)
class InferenceForgetsMoments(Session):
    """An inference pass between two steps resets the moments to zero."""

    def forward(self, phase: Any, *arguments: Any) -> Any:
        if phase == "inference" and self.steps:
            self.slots = {s: {n: 0 * t for n, t in ts.items()} for s, ts in self.slots.items()}
        return super().forward(phase, *arguments)


class _JointSteps(Faulty):
    """A backend that runs several training steps per call."""

    def several(self, step: Advance) -> Advance:
        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            found = []
            for index in range(len(next(iter(batches.values())))):
                batch = {n: t[self.which(index)] for n, t in batches.items()}
                carried, results = step(self.before(index, carried), fixed, batch)
                found.append({n: np.array(t) for n, t in results.items()})
            return carried, {n: np.stack([one[n] for one in found]) for n in found[0]}

        return run

    def which(self, index: int) -> int:
        """Return the number of the batch that a step uses."""
        return index

    def before(self, index: int, carried: Tensors) -> Tensors:
        """Return the carried values that a step starts from."""
        return carried


@backend("sequence_rnn", STEPS)
class BatchesBeyondFourInOneCall(_JointSteps):
    """With several steps per call, steps after the fourth reuse the first four batches."""

    def which(self, index: int) -> int:
        return index % 4


@backend("stateful_lstm", "long-state")
class StateLostBetweenCalls(_JointSteps):
    """With several steps per call, the first step starts from a zero state."""

    def before(self, index: int, carried: Tensors) -> Tensors:
        if index:
            return carried
        return {n: 0 * t if n.startswith("state.") else t for n, t in carried.items()}


@session("sequence_rnn", STEPS, BOTH)
class MomentsForgottenWhenTakenUp(Session):
    """If training is resumed, the first moments start from zero."""

    def load_slots(self, slots: Any, steps: int) -> None:
        forgotten = {n: 0 * np.asarray(a) for n, a in slots.get("m", {}).items()}
        super().load_slots({**slots, **({"m": forgotten} if forgotten else {})}, steps)
