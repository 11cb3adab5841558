"""Faults in training steps and in the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.backends.numpy.primitives import PRIMITIVES
from harness.runtime.session import Session
from harness.runtime.updates import Update, Values
from harness_mutants.registry import FLOAT64, Faulty, Mutant, register, session

Tensors = dict[str, Any]


@session("simple_rnn", "training-sgd")
class RateFrozen(Session):
    """All steps use the learning rate of the first step."""

    _rate: float | None = None

    def step(self, inputs: Any, state: Any, targets: Any, learning_rate: float) -> Any:
        self._rate = self._rate or learning_rate
        return super().step(inputs, state, targets, self._rate)


@session("theano_rnn", "training-sgd")
class RateOneStepLate(Session):
    """A step uses the learning rate of the previous step."""

    _rate: float | None = None

    def step(self, inputs: Any, state: Any, targets: Any, learning_rate: float) -> Any:
        late, self._rate = self._rate or learning_rate, learning_rate
        return super().step(inputs, state, targets, late)


@session("keras_gru", "training-sgd")
class UpdateTwice(Session):
    """Every update is applied twice."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        once = super()._apply_rule(trained, gradients, learning_rate)
        return super()._apply_rule(once, gradients, learning_rate)


@session("sequence_onehot", "training-sgd")
class UpdateOneStepLate(Session):
    """A step applies the gradients of the previous step."""

    _last: Tensors | None = None

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        late, self._last = self._last or gradients, gradients
        return super()._apply_rule(trained, late, learning_rate)


@session("first_rnn", "training-sgd")
class UpdateOmitsBiases(Session):
    """Biases are not trained."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        found = super()._apply_rule(trained, gradients, learning_rate)
        return {n: trained[n] if n.endswith(".b") else t for n, t in found.items()}


@session("theano_gru", "training-sgd")
class LossAfterUpdate(Session):
    """The results of a step are computed with the updated parameters."""

    def step(self, inputs: Any, state: Any, targets: Any, learning_rate: float) -> Any:
        super().step(inputs, state, targets, learning_rate)
        return self.forward("training", inputs, state, targets)


@session("theano_gru_combined", "training-sgd")
class ReadsInitialValues(Session):
    """Reading parameters returns the loaded values instead of the trained values."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._loaded = dict(self.variables)

    def read(self) -> dict[str, Any]:
        return super().read() | {"parameters": self.neutral(self._loaded)}


@session("sequence_rnn", "training", FLOAT64)
class SlotsResetEachStep(Session):
    """Moments are reset to zero before every update."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.slots = {s: {n: 0 * t for n, t in ts.items()} for s, ts in self.slots.items()}
        return super()._apply_rule(trained, gradients, learning_rate)


@session("keras_gru", "training", FLOAT64)
class SlotsOfAnotherParameter(Session):
    """The moments of two parameters with the same shape are swapped at every step."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        for slot in self.slots.values():
            slot["gru.U_z"], slot["gru.U_r"] = slot["gru.U_r"], slot["gru.U_z"]
        return super()._apply_rule(trained, gradients, learning_rate)


@session("stateful_lstm", "training", FLOAT64)
class SlotsSwapped(Session):
    """The first and the second moments are swapped when read."""

    def read(self) -> dict[str, Any]:
        found = super().read()
        slots = found["slots"]
        swapped = {"m": slots["v"], "v": slots["m"]} if "v" in slots else slots
        return found | {"slots": swapped}


@session("three_char", "training", FLOAT64)
class SlotsKeptByLoad(Session):
    """Loading parameters does not reset the moments and the step count."""

    def load(self, parameters: Any, statistics: Any) -> None:
        kept, steps = self.slots, self.steps
        super().load(parameters, statistics)
        if kept.keys() == self.slots.keys():
            self.slots, self.steps = kept or self.slots, steps


@session("first_rnn", "training", FLOAT64)
class StepNotCounted(Session):
    """The step count is always 1."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        self.steps = 1
        return super()._apply_rule(trained, gradients, learning_rate)


@session("sequence_unrolled", "training", FLOAT64)
class StepCountedPerCall(Session):
    """Computing gradients without an update increases the step count."""

    def gradient_function(self, phase: Any, mode: Any) -> Any:
        self.steps += 1
        return super().gradient_function(phase, mode)


class PerOccurrence(Session):
    """Second moments of embedding rows add one square per occurrence, as in some frameworks."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        before = dict(self.slots.get("v", {}))
        found = super()._apply_rule(trained, gradients, learning_rate)
        if before:
            name, t = "embed.table", self.steps
            squares = self.backend.squares  # type: ignore[attr-defined]
            v = self.slots["v"][name] = 0.999 * before[name] + 0.001 * squares
            rate = learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            found[name] = trained[name] - rate * self.slots["m"][name] / (np.sqrt(v) + 1e-8)
        return found


def _per_occurrence() -> Faulty:
    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        backend.squares = PRIMITIVES["segment_sum"](x * x, indices, rows)  # type: ignore[attr-defined]
        return PRIMITIVES["segment_sum"](x, indices, rows)

    backend = Faulty(PerOccurrence, {**PRIMITIVES, "segment_sum": segment_sum})
    return backend


register(
    Mutant(
        "squares-per-occurrence",
        (PerOccurrence.__doc__ or "").strip(),
        "lesson6/simple_rnn",
        "training",
        FLOAT64,
        _per_occurrence,
    )
)


class _NormOfEach(Update):
    """The global norm is computed for each parameter alone."""

    def _add_total(self, number: int, values: Mapping[str, Values]) -> None:
        for name, env in values.items():
            super()._add_total(number, {name: env})


class _NormWithoutLast(Update):
    """The global norm omits the last parameter."""

    def _add_total(self, number: int, values: Mapping[str, Values]) -> None:
        *others, (last, env) = values.items()
        super()._add_total(number, dict(others))
        total = self._rule_of(last).totals[number]
        first = self._rule_of(others[0][0]).totals[number]
        env |= {total.value: others[0][1][first.value]}


class _NormAndEpsilon(Update):
    """Gradient clipping adds 1e-6 to the norm, as some frameworks do."""

    def _add_total(self, number: int, values: Mapping[str, Values]) -> None:
        super()._add_total(number, values)
        for name, env in values.items():
            value = self._rule_of(name).totals[number].value
            env[value] = (np.sqrt(env[value]) + 1e-6) ** 2


def _with_update(update: type[Update]) -> Callable[[], Faulty]:
    class WithUpdate(Session):
        def rule_update(self) -> Update:
            assert self.rule is not None
            return update(self.rule, self.layout, self.backend.primitives, self.interpreter)

    return lambda: Faulty(WithUpdate)


for _name, _update in (
    ("norm-of-each-parameter", _NormOfEach),
    ("norm-misses-the-last-parameter", _NormWithoutLast),
    ("norm-of-another-epsilon", _NormAndEpsilon),
):
    _summary = (_update.__doc__ or "").strip()
    register(Mutant(_name, _summary, "mlp", "training", FLOAT64, _with_update(_update)))


@session("pure_python_rnn", "training-sgd")
class UpdateInsideTheLoop(Session):
    """Weights change at every time step of the backward pass."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        return {n: t.astype(self.dtype) for n, t in self._inside.items()}

    def step(self, inputs: Any, state: Any, targets: Any, learning_rate: float) -> Any:
        x, y = inputs["chars"], targets["target"]
        w, u, o = (np.array(self.variables[n]) for n in ("rnn.W", "rnn.U", "out.W"))
        hidden = [np.zeros((len(x), len(u)))]
        for t in range(x.shape[1]):
            hidden.append(np.maximum(x[:, t] @ w + hidden[t] @ u, 0))
        back = np.zeros_like(hidden[0])
        for t in reversed(range(x.shape[1])):
            h = hidden[t + 1]
            e = np.exp(h @ self.variables["out.W"])
            d_logits = e / e.sum(-1, keepdims=True) - y[:, t]
            d_pre = (d_logits @ o.T + back) * (h > 0)
            o -= learning_rate * (h.T @ d_logits).astype(o.dtype)
            w -= learning_rate * (x[:, t].T @ d_pre).astype(w.dtype)
            u -= learning_rate * (hidden[t].T @ d_pre).astype(u.dtype)
            back = d_pre @ u.T
        self._inside = {"rnn.W": w, "rnn.U": u, "out.W": o}
        return super().step(inputs, state, targets, learning_rate)
