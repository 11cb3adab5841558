"""Faults that appear only after some steps, batches or calls."""

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


class CountingSession(Session):
    """A session that counts its updates since the last load."""

    _made = 0

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._made = 0

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self._made += 1
        return self.update_wrongly(trained, gradients, learning_rate)

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        """Return the parameters after a wrong update."""
        return super()._apply_rule(trained, gradients, rate)


@session("simple_rnn", STEPS, BOTH)
class CorrectionEndsAtTen(CountingSession):
    """From step 10 on, the bias correction stays that of step 10."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        self.steps = min(self.steps, 10)
        return super().update_wrongly(trained, gradients, rate)


@session("three_char", STEPS, BOTH)
class CorrectionEndsAt127(CountingSession):
    """The step number stays at 127, as in a saturated signed byte."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        kept, self.steps = self.steps, min(self.steps, 127)
        found = super().update_wrongly(trained, gradients, rate)
        self.steps = kept
        return found


@session("first_rnn", STEPS)
class CorrectionLeftOutLater(CountingSession):
    """After 30 steps, there is no bias correction."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        kept, self.steps = self.steps, self.steps if self._made <= 30 else 100_000
        found = super().update_wrongly(trained, gradients, rate)
        self.steps = kept
        return found


@session("theano_rnn", STEPS, BOTH)
class EveryFifthUpdateSkipped(CountingSession):
    """Every fifth update is skipped."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        return trained if self._made % 5 == 0 else found


@session("pure_python_rnn", STEPS)
class UpdatesEndAfterTwelve(CountingSession):
    """Parameters do not change after the twelfth step."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        return trained if self._made > 12 else found


@session("theano_gru", STEPS)
class RateInFloat16(CountingSession):
    """The learning rate is rounded to float16."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().update_wrongly(trained, gradients, float(np.float16(rate)))


@session("keras_gru", STEPS, BOTH)
class RateInBfloat16(CountingSession):
    """The learning rate is rounded to bfloat16."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().update_wrongly(trained, gradients, float(rounded(np.float32(rate), 8)))


@session("three_char", STEPS, BOTH)
class RateHasFloor(CountingSession):
    """Learning rates below 1e-4 are raised to 1e-4."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().update_wrongly(trained, gradients, max(rate, 1e-4))


@session("sequence_unrolled", STEPS, BOTH)
class RateOfNothing(CountingSession):
    """A learning rate of 0 is replaced by the default 0.001."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().update_wrongly(trained, gradients, rate or 1e-3)


@session("sequence_rnn", STEPS)
class RateDecaysUnasked(CountingSession):
    """From step 100 on, the learning rate is 1% smaller."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return super().update_wrongly(trained, gradients, rate * (0.99 if self._made >= 100 else 1))


@session("sequence_onehot", STEPS)
class MomentsResetAtFifty(CountingSession):
    """Moments are reset to zero at every fiftieth step."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        if self._made % 50 == 0:
            self.slots = {s: {n: 0 * t for n, t in ts.items()} for s, ts in self.slots.items()}
        return super().update_wrongly(trained, gradients, rate)


@session("stateful_lstm", STEPS)
class MomentsInFloat16(CountingSession):
    """Moments are rounded to float16 after each step."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        self.slots = {
            s: {n: t.astype(np.float16).astype(t.dtype) for n, t in ts.items()}
            for s, ts in self.slots.items()
        }
        return found


@session("sequence_unrolled", STEPS)
class ClippedAfterTwenty(CountingSession):
    """After 20 steps, gradients are clipped to [-1, 1]."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        if self._made > 20:
            gradients = {n: np.clip(g, -1, 1) for n, g in gradients.items()}
        return super().update_wrongly(trained, gradients, rate)


@session("three_char", STEPS, BOTH)
class LargeGradientsDropped(CountingSession):
    """Parameters do not change if the norm of a gradient exceeds 1,000."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        norm = max(float(np.linalg.norm(g.astype(np.float64))) for g in gradients.values())
        return trained if norm > 1000 else found


@session("theano_gru", STEPS, BOTH)
class GradientsBounded(CountingSession):
    """The update clips gradients to [-100,000, 100,000]."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        gradients = {n: np.clip(g, -1e5, 1e5) for n, g in gradients.items()}
        return super().update_wrongly(trained, gradients, rate)


@session("sequence_rnn", STEPS, BOTH)
class ParametersBounded(CountingSession):
    """The update clips parameters to [-20, 20]."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        return {n: np.clip(t, -20, 20) for n, t in found.items()}


@session("theano_gru_combined", STEPS)
class DecayAfterTen(CountingSession):
    """After 10 steps, each step also shrinks the parameters by 0.1%."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        return {n: t * t.dtype.type(0.999) for n, t in found.items()} if self._made > 10 else found


@session("spoken", STEPS)
class GroupsLost(Session):
    """float32 only: parameter groups are ignored."""

    def use_rule(self, rule: UpdateRule | None, claim: bool = True) -> None:
        lost = rule is not None and self.dtype == "float32"
        super().use_rule(replace(rule, groups={}) if rule and lost else rule, claim)


@session("stateful_lstm", STEPS, FLOAT64)
class MomentsNarrowLater(CountingSession):
    """From step 6 on, moments are rounded to float32."""

    def update_wrongly(self, trained: Tensors, gradients: Tensors, rate: float) -> Tensors:
        found = super().update_wrongly(trained, gradients, rate)
        if self._made > 5:
            self.slots = {
                s: {n: t.astype(np.float32).astype(t.dtype) for n, t in ts.items()}
                for s, ts in self.slots.items()
            }
        return found


@session("stateful_lstm", STEPS)
class StatisticsEndAfterTen(Session):
    """Moving statistics do not change after step 10."""

    def step(self, *arguments: Any) -> Any:
        kept = dict(self.statistics)
        found = super().step(*arguments)
        if self.steps > 10:
            self.statistics = kept
        return found


@session("stateful_lstm", STEPS)
class StateOfTrainingLost(Session):
    """From training step 6 on, the new state is zero."""

    def step(self, *arguments: Any) -> Any:
        found = super().step(*arguments)
        late = self.steps > 5
        return {n: 0 * a if late and n.startswith("state.") else a for n, a in found.items()}


class _StateLosingSession(Session):
    _made = 0

    def lost(self, batch: int) -> bool:
        """Return whether a batch starts from a zero state; ``batch`` counts from 1."""
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
class StateLostAtTheSixthBatch(_StateLosingSession):
    """The sixth batch after a load starts from a zero state."""

    def lost(self, batch: int) -> bool:
        return batch == 6


@session("stateful_lstm", "long-state")
class StateLostAtEvery16th(_StateLosingSession):
    """Every 16th batch starts from a zero state."""

    def lost(self, batch: int) -> bool:
        return batch % 16 == 0


@session("simple_rnn", STEPS)
class SixtiethGradientStale(Session):
    """From the 60th gradient on, a session returns the gradients of the previous call."""

    _calls = 0
    _last: Any = None

    def _run_gradients(self, *arguments: Any) -> Any:
        found = super()._run_gradients(*arguments)
        self._calls += 1
        stale = self._last if self._calls >= 60 and self._last is not None else found
        self._last = found
        fits = found[1].keys() == stale[1].keys() and all(
            t.shape == stale[1][n].shape for n, t in found[1].items()
        )
        return stale if fits else found
