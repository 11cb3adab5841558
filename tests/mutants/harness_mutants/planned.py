"""Faults of plans alone, beyond a size or later: sessions, which walk the table, are right."""

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
from harness_mutants.far import OwnKernels, Run
from harness_mutants.registry import BOTH, Faulty

LARGE, STEPS = "large-sizes", "optimizer-steps"
backend = partial(registry.backend, everywhere=True)


@backend("sequence_rnn", LARGE)
class PlannedGradientAbove32(Faulty):
    """In plans alone, steps with batches above 32 are a thousandth too long."""

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
class PlannedRowsOf64Positions(OwnKernels):
    """In plans alone a row's gradient is that of the first 64 positions."""

    kernels = _RepeatKernels


class Planned(Faulty):
    """Counts the runs of each plan that trains."""

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
        """A run that is wrong."""
        raise NotImplementedError


@backend("simple_rnn", STEPS, BOTH)
class PlannedCorrectionEndsAtTen(Planned):
    """In plans alone the bias correction is that of the tenth step from there on."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        ten = {"step": np.asarray(10, inputs["step"].dtype)} if count > 10 else {}
        return run({**inputs, **ten})


@backend("theano_rnn", STEPS)
class PlannedUpdateSkipped(Planned):
    """In plans alone every fifth step leaves the parameters as they were."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        kept = {n: np.array(a) for n, a in inputs.items()}
        found = dict(run(inputs))
        if count % 5 == 0:
            found |= {
                n: kept[n] for n in found if n in kept and "." in n and n[:2] not in ("m.", "v.")
            }
        return found


@backend("sequence_rnn", STEPS)
class PlannedMomentsResetAtForty(Planned):
    """In plans alone moments start from zeros at the fortieth step."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        if count == 40:
            inputs = {n: 0 * a if n[:2] in ("m.", "v.") else a for n, a in inputs.items()}
        return run(inputs)


@backend("stateful_lstm", STEPS)
class PlannedStateLost(Planned):
    """In plans alone the state is zeros from the sixth step of training on."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        if count > 5:
            inputs = {n: 0 * a if n.startswith("state.") else a for n, a in inputs.items()}
        return run(inputs)


@backend("stateful_lstm", STEPS)
class PlannedStatisticsEnd(Planned):
    """In plans alone moving statistics stay as the tenth step has made them."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        kept = {n: np.array(a) for n, a in inputs.items() if n.startswith("statistics.")}
        found = dict(run(inputs))
        return {**found, **kept} if count > 10 else found


@backend("stateful_lstm", "long-state")
class PlannedStateOfForwardLost(Faulty):
    """In plans of forward passes alone, the sixteenth starts from a state of zeros."""

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
class PlannedStepWithoutNan(Planned):
    """In plans alone a step makes zeros of NaN."""

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        return {n: np.nan_to_num(a, nan=0.0) for n, a in run(inputs).items()}


@backend("keras_gru", "pipeline-training", BOTH)
class PlannedStepAfterNan(Planned):
    """In plans alone a loss that comes after a NaN is a hundredth too large."""

    lost = False

    def later(self, count: int, run: Run, inputs: Tensors) -> Tensors:
        found = dict(run(inputs))
        if self.lost:
            found["loss"] = found["loss"] * found["loss"].dtype.type(1.01)
        self.lost = self.lost or bool(np.isnan(found["loss"]))
        return found
