"""Faults that come later: after some steps, some batches, some calls."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from harness.program.updates import UpdateRule
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.numbers import rounded
from harness_mutants.registry import BOTH, FLOAT64

STEPS = "optimizer-steps"
session = partial(registry.session, everywhere=True)


class Counted(Session):
    """Counts the updates since the last load."""

    _made = 0

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._made = 0

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self._made += 1
        return self.updated_by(trained, gradients, learning_rate)

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        """The update that is wrong."""
        return super()._apply_rule(trained, gradients, rate)


@session("simple_rnn", STEPS, BOTH)
class CorrectionEndsAtTen(Counted):
    """The bias correction is that of the tenth step from there on."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        self.steps = min(self.steps, 10)
        return super().updated_by(trained, gradients, rate)


@session("three_char", STEPS, BOTH)
class CorrectionEndsAt127(Counted):
    """The number of a step is a byte with a sign, and stays at 127."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        kept, self.steps = self.steps, min(self.steps, 127)
        found = super().updated_by(trained, gradients, rate)
        self.steps = kept
        return found


@session("first_rnn", STEPS)
class CorrectionLeftOutLater(Counted):
    """The bias correction is left out after 30 steps."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        kept, self.steps = self.steps, self.steps if self._made <= 30 else 100_000
        found = super().updated_by(trained, gradients, rate)
        self.steps = kept
        return found


@session("theano_rnn", STEPS, BOTH)
class EveryFifthUpdateSkipped(Counted):
    """Every fifth update is left out."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        return trained if self._made % 5 == 0 else found


@session("pure_python_rnn", STEPS)
class UpdatesEndAfterTwelve(Counted):
    """Parameters stay as the twelfth step has made them."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        return trained if self._made > 12 else found


@session("theano_gru", STEPS)
class RateInFloat16(Counted):
    """The learning rate is held in float16."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().updated_by(trained, gradients, float(np.float16(rate)))


@session("keras_gru", STEPS, BOTH)
class RateInBfloat16(Counted):
    """The learning rate is held in bfloat16."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().updated_by(trained, gradients, float(rounded(np.float32(rate), 8)))


@session("three_char", STEPS, BOTH)
class RateHasFloor(Counted):
    """A learning rate below a ten-thousandth is taken for that."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().updated_by(trained, gradients, max(rate, 1e-4))


@session("sequence_unrolled", STEPS, BOTH)
class RateOfNothing(Counted):
    """A learning rate of 0 is taken for none that was given."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().updated_by(trained, gradients, rate or 1e-3)


@session("sequence_rnn", STEPS)
class RateDecaysUnasked(Counted):
    """The learning rate is a hundredth smaller from the hundredth step on."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().updated_by(trained, gradients, rate * (0.99 if self._made >= 100 else 1))


@session("sequence_onehot", STEPS)
class MomentsResetAtFifty(Counted):
    """Moments start from zeros at every fiftieth step."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        if self._made % 50 == 0:
            self.slots = {s: {n: 0 * t for n, t in ts.items()} for s, ts in self.slots.items()}
        return super().updated_by(trained, gradients, rate)


@session("stateful_lstm", STEPS)
class MomentsInFloat16(Counted):
    """Moments are kept in float16."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        self.slots = {
            s: {n: t.astype(np.float16).astype(t.dtype) for n, t in ts.items()}
            for s, ts in self.slots.items()
        }
        return found


@session("sequence_unrolled", STEPS)
class ClippedAfterTwenty(Counted):
    """From the twentieth step on, gradients are kept within 1."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        if self._made > 20:
            gradients = {n: np.clip(g, -1, 1) for n, g in gradients.items()}
        return super().updated_by(trained, gradients, rate)


@session("three_char", STEPS, BOTH)
class LargeGradientsDropped(Counted):
    """A step whose gradient has a norm above a thousand changes nothing."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        norm = max(float(np.linalg.norm(g.astype(np.float64))) for g in gradients.values())
        return trained if norm > 1000 else found


@session("theano_gru", STEPS, BOTH)
class GradientsBounded(Counted):
    """An update keeps gradients within a hundred thousand."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        gradients = {n: np.clip(g, -1e5, 1e5) for n, g in gradients.items()}
        return super().updated_by(trained, gradients, rate)


@session("sequence_rnn", STEPS, BOTH)
class ParametersBounded(Counted):
    """An update keeps parameters within 20."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        return {n: np.clip(t, -20, 20) for n, t in found.items()}


@session("theano_gru_combined", STEPS)
class DecayAfterTen(Counted):
    """From the tenth step on, parameters shrink by a thousandth."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        return {n: t * t.dtype.type(0.999) for n, t in found.items()} if self._made > 10 else found


@session("spoken", STEPS)
class GroupsLost(Session):
    """In float32 the parameters of a group are trained as all others."""

    def use_rule(self, rule: UpdateRule | None, claim: bool = True) -> None:
        lost = rule is not None and self.dtype == "float32"
        super().use_rule(replace(rule, groups={}) if rule and lost else rule, claim)


@session("stateful_lstm", STEPS, FLOAT64)
class MomentsNarrowLater(Counted):
    """Moments are float32 from the sixth step on."""

    def updated_by(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().updated_by(trained, gradients, rate)
        if self._made > 5:
            self.slots = {
                s: {n: t.astype(np.float32).astype(t.dtype) for n, t in ts.items()}
                for s, ts in self.slots.items()
            }
        return found


@session("stateful_lstm", STEPS)
class StatisticsEndAfterTen(Session):
    """Moving statistics stay as the tenth step has made them."""

    def step(self, *arguments: Any) -> Any:
        kept = dict(self.statistics)
        found = super().step(*arguments)
        if self.steps > 10:
            self.statistics = kept
        return found


@session("stateful_lstm", STEPS)
class StateOfTrainingLost(Session):
    """From the sixth step of training on, a step's new state is zeros."""

    def step(self, *arguments: Any) -> Any:
        found = super().step(*arguments)
        late = self.steps > 5
        return {n: 0 * a if late and n.startswith("state.") else a for n, a in found.items()}


class _LosesState(Session):
    _made = 0

    def lost(self, batch: int) -> bool:
        """Whether a batch, counted from 1 since parameters were loaded, starts from zeros."""
        raise NotImplementedError

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._made = 0

    def forward(self, phase: Any, inputs: Any, state: Any, *others: Any) -> Any:
        self._made += 1
        lost = self.lost(self._made)
        return super().forward(
            phase, inputs, {n: 0 * a if lost else a for n, a in state.items()}, *others
        )


@session("stateful_lstm", "long-state", BOTH)
class StateLostAtTheSixthBatch(_LosesState):
    """The sixth batch since parameters were loaded starts from a state of zeros."""

    def lost(self, batch: int) -> bool:
        return batch == 6


@session("stateful_lstm", "long-state")
class StateLostAtEvery16th(_LosesState):
    """Every 16th batch starts from a state of zeros."""

    def lost(self, batch: int) -> bool:
        return batch % 16 == 0


@session("simple_rnn", STEPS)
class SixtiethGradientStale(Session):
    """From the sixtieth on, a session's gradient is that of the call before."""

    _calls = 0
    _last: Any = None

    def _differentiated(self, *arguments: Any) -> Any:
        found = super()._differentiated(*arguments)
        self._calls += 1
        stale = self._last if self._calls >= 60 and self._last is not None else found
        self._last = found
        fits = found[1].keys() == stale[1].keys() and all(
            t.shape == stale[1][n].shape for n, t in found[1].items()
        )
        return stale if fits else found
