"""Faults of mixed precision: what must be float32 is narrower, and scales of losses."""

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
    """Parameters are kept in bfloat16."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        return _rounded(super()._apply_rule(trained, gradients, learning_rate))


@session("first_rnn", STEPS, BFLOAT16)
class SlotsInBfloat16(Session):
    """Moments are kept in bfloat16."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        found = super()._apply_rule(trained, gradients, learning_rate)
        self.slots = {slot: _rounded(tensors) for slot, tensors in self.slots.items()}
        return found


@session("keras_gru", STEPS, BFLOAT16)
class StepInBfloat16(Session):
    """The number of the step is a bfloat16, and one more than 256 is 256."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.steps = min(self.steps, 256)
        return super()._apply_rule(trained, gradients, learning_rate)


@session("stateful_lstm", STEPS, BFLOAT16)
class ConstantsInBfloat16(Session):
    """Numbers of a spec are bfloat16: 0.999 is 1, and what is divided by one less is not finite."""

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

    def _differentiated(self, *arguments: Any) -> tuple[Tensors, Tensors]:
        results, gradients = super()._differentiated(*arguments)
        return results, {n: g * np.float32(2**10) for n, g in gradients.items()}


@session("three_char", STEPS, FLOAT16)
class OverflowCounts(Session):
    """A step whose gradients are not finite is made like any other."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.scales = False
        found = super()._apply_rule(trained, gradients, learning_rate)
        self.scales = True
        return found
