"""Faults of mixed precision: values that must be float32 are rounded, or loss scaling is wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.runtime.native import Tensors
from harness.runtime.precision import rounded_to
from harness.runtime.session import Session
from harness_mutants import registry

STEPS = "optimizer-steps"
BFLOAT16, FLOAT16 = ("bfloat16",), ("float16",)
session = partial(registry.session, everywhere=True)


def _rounded(tensors: Tensors) -> Tensors:
    return {n: rounded_to(t, "bfloat16") for n, t in tensors.items()}


@session("sequence_rnn", STEPS, BFLOAT16)
class MasterWeightsMissing(Session):
    """Parameters are stored in bfloat16 after each update."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        return _rounded(super()._apply_rule(trained, gradients, learning_rate))


@session("first_rnn", STEPS, BFLOAT16)
class SlotsInBfloat16(Session):
    """Moments are stored in bfloat16 after each update."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        found = super()._apply_rule(trained, gradients, learning_rate)
        self.slots = {slot: _rounded(tensors) for slot, tensors in self.slots.items()}
        return found


@session("keras_gru", STEPS, BFLOAT16)
class StepInBfloat16(Session):
    """The step number is stored in bfloat16, in which 256 + 1 is 256."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.steps = min(self.steps, 256)
        return super()._apply_rule(trained, gradients, learning_rate)


@session("stateful_lstm", STEPS, BFLOAT16)
class ConstantsInBfloat16(Session):
    """Constants of a spec are rounded to bfloat16: 0.999 becomes 1."""

    def scalar(self, value: float) -> Any:
        return super().scalar(float(rounded_to(np.asarray(value, np.float32), "bfloat16")))


@session("simple_rnn", "initial-values", BFLOAT16)
class LoadedInBfloat16(Session):
    """Loading rounds weights to bfloat16."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: rounded_to(a, "bfloat16") for n, a in parameters.items()}, statistics)


@session("theano_gru", "gradients", FLOAT16)
class ScaleNotUndone(Session):
    """Gradients are not divided by the loss scale."""

    def _run_gradients(self, *arguments: Any) -> tuple[Tensors, Tensors]:
        results, gradients = super()._run_gradients(*arguments)
        return results, {n: g * np.float32(2**10) for n, g in gradients.items()}


@session("three_char", STEPS, FLOAT16)
class OverflowCounts(Session):
    """A step with infinite or NaN gradients is not skipped."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.scales = False
        found = super()._apply_rule(trained, gradients, learning_rate)
        self.scales = True
        return found
