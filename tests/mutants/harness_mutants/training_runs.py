"""Faults that only ``harness train`` triggers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.program.plan import Plan
from harness.runtime.native import Tensors
from harness_mutants import registry
from harness_mutants.extreme_values import Run
from harness_mutants.registry import Faulty

backend = partial(registry.backend, everywhere=True)
# The least number of batches that are stored in one array and overwritten together.
BESIDE = 8


@backend("sequence_rnn", "trained")
class LastBatchStays(Faulty):
    """If at least 8 batches are written at once, the last batch is not written."""

    def fill(self, tensor: Any, array: Array) -> None:
        before = np.array(tensor[-1])
        super().fill(tensor, array)
        if len(tensor) >= BESIDE:
            tensor[-1] = before


@backend("sequence_rnn", "trained")
class OffWhenFast(Faulty):
    """In steps compiled for speed, updates are 1% too large."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)
        if self.quick or "loss" not in plan.outputs:
            return run

        def longer(inputs: Tensors) -> Tensors:
            before = {n: np.array(a) for n, a in inputs.items()}
            found = dict(run(inputs))
            for name in found.keys() & before.keys():
                if name.endswith((".W", ".U", ".b")):
                    moved = found[name] - before[name]
                    found[name] = (found[name] + 0.01 * moved).astype(moved.dtype)
            return found

        return longer
