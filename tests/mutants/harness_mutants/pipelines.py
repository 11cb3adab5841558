"""Faults of whole steps: state, moments or batches are not passed on correctly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from harness_mutants.registry import FLOAT64, Faulty, backend

Run = Callable[[Tensors], Tensors]


@backend("stateful_lstm", "pipeline-forward")
class StateNotHandedOn(Faulty):
    """Each forward pass of a plan starts from the state of the first pass."""

    def execute(self, plan: Plan) -> Run:
        run, first = super().execute(plan), {}

        def again(inputs: Tensors) -> Tensors:
            for name, array in inputs.items():
                if name.startswith("state."):
                    first.setdefault(name, array.copy())
            return run({**inputs, **{n: a.copy() for n, a in first.items()}})

        return again


@backend("sequence_rnn", "pipeline-forward")
class ResultsOfTheLastBatch(Faulty):
    """A step returns the outputs of the previous step."""

    def execute(self, plan: Plan) -> Run:
        run, last = super().execute(plan), {}

        def late(inputs: Tensors) -> Tensors:
            results = run(inputs)
            outputs = {n: a.copy() for n, a in results.items() if n.startswith("output.")}
            given = {**results, **last}
            last.update(outputs)
            return given

        return late


@backend("sequence_rnn", "pipeline-training", FLOAT64)
class StepAlwaysTheFirst(Faulty):
    """Every step uses the bias correction of step 1."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def first(inputs: Tensors) -> Tensors:
            return run({n: np.ones_like(a) if n == "step" else a for n, a in inputs.items()})

        return first


@backend("three_char", "pipeline-training", FLOAT64)
class MomentsForgotten(Faulty):
    """Moments are zero at the start of each step of a plan."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def afresh(inputs: Tensors) -> Tensors:
            return run({n: 0 * a if n.startswith(("m.", "v.")) else a for n, a in inputs.items()})

        return afresh


@backend("stateful_lstm", "pipeline-training")
class StatisticsNotHandedOn(Faulty):
    """A step of a plan does not update the moving statistics."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def frozen(inputs: Tensors) -> Tensors:
            kept = {n: a.copy() for n, a in inputs.items() if n.startswith("statistics.")}
            return {**run(inputs), **kept}

        return frozen


@backend("theano_rnn", "pipeline-training")
class FirstBatchAgain(Faulty):
    """Every step uses the targets of the first batch."""

    def execute(self, plan: Plan) -> Run:
        run, first = super().execute(plan), {}

        def repeated(inputs: Tensors) -> Tensors:
            for name, array in inputs.items():
                if name.startswith("target."):
                    first.setdefault(name, array.copy())
            return run({**inputs, **first})

        return repeated
