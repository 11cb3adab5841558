"""Faults of plans, beyond a size or after some steps. Sessions, which run no plans, are right."""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.primitives import PRIMITIVES
from harness.extend.executor import Call
from harness.program.plan import Plan
from harness.runtime.native import Tensors
from harness_mutants import registry
from harness_mutants.extreme_values import FaultyKernels, Run
from harness_mutants.registry import BOTH, Faulty

LARGE, STEPS = "large-sizes", "optimizer-steps"
backend = partial(registry.backend, everywhere=True)


@backend("sequence_rnn", LARGE)
class PlannedGradientAbove32(Faulty):
    """Plans only: updates are 0.1% too large for batches above 32."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        large = plan.sizes.get("batch", 0) > 32 and "loss" in plan.outputs

        def scaled(inputs: Tensors) -> Tensors:
            before = {n: np.array(a) for n, a in inputs.items()} if large else {}
            found = dict(run(inputs))
            for name in found.keys() & before.keys():
                if name.endswith((".W", ".U", ".b")):
                    longer = found[name] + np.float32(0.001) * (found[name] - before[name])
                    found[name] = longer.astype(found[name].dtype)
            return found

        return scaled


class _RepeatKernels(NumpyKernels):
    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.table = {**self.table, "segment_sum": self._segments}

    def _segments(self, out: Array, x: Array, indices: Array) -> Call:
        def run() -> None:
            cut = x.reshape(indices.size, -1)[:64], indices.reshape(-1)[:64]
            np.copyto(out, PRIMITIVES["segment_sum"](*cut, len(out)).reshape(out.shape))

        return run


@backend("simple_rnn", LARGE)
class PlannedRowsOf64Positions(FaultyKernels):
    """Plans only: gradients of embedding rows include the first 64 positions only."""

    kernels = _RepeatKernels


class CountingPlans(Faulty):
    """A backend that counts the steps of each training plan."""

    def execute(self, plan: Plan) -> Run:
        run, count = super().execute(plan), 0
        if "loss" not in plan.outputs:
            return run

        def counted(inputs: Tensors) -> Tensors:
            nonlocal count
            count += 1
            return self.later(count, run, inputs)

        return counted

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        """Return the results of a faulty step; ``count`` is the step number."""
        raise NotImplementedError


@backend("simple_rnn", STEPS, BOTH)
class PlannedCorrectionEndsAtTen(CountingPlans):
    """Plans only: the bias correction stays that of step 10."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        ten = {"step": np.asarray(10, inputs["step"].dtype)} if count > 10 else {}
        return run({**inputs, **ten})


@backend("theano_rnn", STEPS)
class PlannedUpdateSkipped(CountingPlans):
    """Plans only: every fifth step does not change the parameters."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        kept = {n: np.array(a) for n, a in inputs.items()}
        found = dict(run(inputs))
        if count % 5 == 0:
            found |= {
                n: kept[n] for n in found if n in kept and "." in n and n[:2] not in ("m.", "v.")
            }
        return found


@backend("sequence_rnn", STEPS)
class PlannedMomentsResetAtForty(CountingPlans):
    """Plans only: moments are reset to zero at step 40."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        if count == 40:
            inputs = {n: 0 * a if n[:2] in ("m.", "v.") else a for n, a in inputs.items()}
        return run(inputs)


@backend("stateful_lstm", STEPS)
class PlannedStateLost(CountingPlans):
    """Plans only: from training step 6 on, each step starts from a zero state."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        if count > 5:
            inputs = {n: 0 * a if n.startswith("state.") else a for n, a in inputs.items()}
        return run(inputs)


@backend("stateful_lstm", STEPS)
class PlannedStatisticsEnd(CountingPlans):
    """Plans only: moving statistics do not change after step 10."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        kept = {n: np.array(a) for n, a in inputs.items() if n.startswith("statistics.")}
        found = dict(run(inputs))
        return {**found, **kept} if count > 10 else found


@backend("stateful_lstm", "long-state")
class PlannedStateOfForwardLost(Faulty):
    """Plans only: the 16th forward pass starts from a zero state."""

    def execute(self, plan: Plan) -> Run:
        run, count = super().execute(plan), 0

        def counted(inputs: Tensors) -> Tensors:
            nonlocal count
            count += 1
            lost = count == 16 and "loss" not in plan.outputs
            zeros = {n: 0 * a if lost and n.startswith("state.") else a for n, a in inputs.items()}
            return run(zeros)

        return counted


@backend("simple_rnn", "pipeline-training", BOTH)
class PlannedStepWithoutNan(CountingPlans):
    """Plans only: NaN in the results of a step is replaced by 0."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        return {n: np.nan_to_num(a, nan=0.0) for n, a in run(inputs).items()}


@backend("keras_gru", "pipeline-training", BOTH)
class PlannedStepAfterNan(CountingPlans):
    """Plans only: after a NaN loss, all losses are 1% too large."""

    lost = False

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        found = dict(run(inputs))
        if self.lost:
            found["loss"] = found["loss"] * found["loss"].dtype.type(1.01)
        self.lost = self.lost or bool(np.isnan(found["loss"]))
        return found
