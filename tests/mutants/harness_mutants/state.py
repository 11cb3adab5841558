"""Faults of recurrent state and moving statistics: stale, leaked, lost, or of the wrong phase."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.runtime.session import Session
from harness_mutants.registry import BOTH, session

STATEFUL = "stateful_lstm"


@session(STATEFUL, "carried-state")
class StateIgnored(Session):
    """Every call starts from a zero state instead of the given state."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        return super().arguments(phase, inputs, {n: 0 * a for n, a in state.items()}, targets)


@session(STATEFUL, "carried-state")
class StateKept(Session):
    """A call starts from the new state of the previous call if the shapes are equal."""

    _last: dict[str, Any] | None = None

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        fits = {n: a for n, a in (self._last or {}).items() if a.shape == state[n].shape}
        return super().arguments(phase, inputs, {**state, **fits}, targets)

    def forward(self, *arguments: Any) -> dict[str, Any]:
        found = super().forward(*arguments)
        self._last = {p.name: found[f"state.{p.name}"] for p in self.programs["training"].state}
        return found


@session(STATEFUL, "repeatability")
class StateLeaksFromTraining(Session):
    """0.1% of the new state of a gradient call is added to the state of the next call."""

    _last: dict[str, Any] | None = None

    def gradients(self, phase: Any, inputs: Any, state: Any, *others: Any) -> Any:
        fits = {n: a for n, a in (self._last or {}).items() if a.shape == state[n].shape}
        leaked = {n: a + 1e-3 * fits.get(n, 0) for n, a in state.items()}
        results, gradients = super().gradients(phase, inputs, leaked, *others)
        self._last = {n: results[f"state.{n}"] for n in state}
        return results, gradients


@session(STATEFUL, "state")
class StateReturnedUnchanged(Session):
    """The given state is returned as the new state."""

    def walk(self, phase: Any, mode: Any, variables: Any, *others: Any) -> Any:
        results = super().walk(phase, mode, variables, *others)
        return results | {n: variables[n] for n in results if n.startswith("state.")}

    def gradient_function(self, phase: Any, mode: Any) -> Any:
        inner = super().gradient_function(phase, mode)

        def function(variables: Any, constants: Any) -> Any:
            results, gradients = inner(variables, constants)
            old = {n: variables[n] for n in results if n.startswith("state.")}
            return results | old, gradients

        return function


@session(STATEFUL, "state")
class StateSwapped(Session):
    """Cell state and hidden state are swapped when returned."""

    def to_numpy(self, results: Any) -> Any:
        found = super().to_numpy(results)
        if "state.h" in found:
            found["state.h"], found["state.c"] = found["state.c"], found["state.h"]
        return found


@session(STATEFUL, "training-sgd")
class StateResetByTraining(Session):
    """A training step returns a zero state."""

    def step(self, *arguments: Any) -> Any:
        found = super().step(*arguments)
        return {n: 0 * a if n.startswith("state.") else a for n, a in found.items()}


@session(STATEFUL, "inference")
class AlwaysTraining(Session):
    """Inference normalises by the statistics of the batch, as in training."""

    def forward(self, phase: Any, *arguments: Any) -> Any:
        return super().forward("training", *arguments)


@session(STATEFUL, "statistics")
class AlwaysInference(Session):
    """Training normalises by the moving statistics and does not update them."""

    def gradients(self, phase: Any, *arguments: Any) -> Any:
        results, gradients = super().gradients("inference", *arguments)
        statistics = {f"statistics.{n}": np.array(a) for n, a in self.statistics.items()}
        return results | statistics, gradients


@session(STATEFUL, "training-sgd")
class StatisticsFrozen(Session):
    """Training steps do not update the moving statistics."""

    def step(self, *arguments: Any) -> Any:
        kept = dict(self.statistics)
        found = super().step(*arguments)
        self.statistics = kept
        return found


@session(STATEFUL, "training-sgd")
class StatisticsOneStepLate(Session):
    """Reading moving statistics after a step returns the values before the step."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._late = dict(self.statistics)

    def step(self, *arguments: Any) -> Any:
        before = dict(self.statistics)
        found = super().step(*arguments)
        self._late = before
        return found

    def read(self) -> dict[str, Any]:
        late = {n: np.array(a) for n, a in self._late.items()}
        return super().read() | {"statistics": late}


@session(STATEFUL, "repeatability")
class StatisticsMovedByGradients(Session):
    """Computing gradients updates the moving statistics."""

    def gradients(self, *arguments: Any) -> Any:
        results, gradients = super().gradients(*arguments)
        for name in self.statistics:
            self.statistics[name] = np.array(results[f"statistics.{name}"])
        return results, gradients


@session(STATEFUL, "carried-state")
class StatisticsMovedByInference(Session):
    """Forward passes change the moving statistics."""

    def forward(self, *arguments: Any) -> Any:
        found = super().forward(*arguments)
        self.statistics = {n: 0.99 * a for n, a in self.statistics.items()}
        return found


@session(STATEFUL, "repeatability")
class StatisticsNotLoaded(Session):
    """Loading does not replace the moving statistics."""

    def load(self, parameters: Any, statistics: Any) -> None:
        kept = {n: 0.9 * a for n, a in self.statistics.items()}
        super().load(parameters, statistics)
        self.statistics = kept or self.statistics


@session(STATEFUL, "initial-values", BOTH)
class FirstStatisticsReplaced(Session):
    """Moving statistics that are still zero are replaced by the statistics of the batch."""

    def gradient_function(self, phase: Any, mode: Any) -> Any:
        inner = super().gradient_function(phase, mode)

        def function(variables: Any, constants: Any) -> Any:
            results, gradients = inner(variables, constants)
            name = "statistics.norm.moving_mean"
            if phase == "training" and not constants[name].any():
                results = {**results, name: 100 * results[name]}  # its momentum is 0.99
            return results, gradients

        return function
