"""Faults in loops over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness.runtime.interpreter import Step
from harness_mutants.registry import FLOAT32, Faulty, Mutant, model_of, register

Result = tuple[list[Any], list[Any]]
Arguments = tuple[Step, Sequence[Any], Sequence[Any], bool]


def loop(spec: str, check: str) -> Callable[[type[Faulty]], type[Faulty]]:
    """Register a backend class with a faulty ``scan``."""

    def add(cls: type[Faulty]) -> type[Faulty]:
        name = cls.__name__[0].lower() + cls.__name__[1:]
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in name)
        summary = (cls.__doc__ or "").strip()
        register(Mutant(name, summary, model_of(spec), check, FLOAT32, cls))
        return cls

    return add


@loop("sequence_rnn", "outputs")
class LoopOneStepLate(Faulty):
    """Step t reads the input of step t - 1; the first step reads its own input."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        late = [np.concatenate([s[:1], s[:-1]]) for s in sequences] if not reverse else sequences
        return super().scan(step, carries, late, reverse)


@loop("sequence_onehot", "causality")
class LoopOneStepEarly(Faulty):
    """Step t reads the input of step t + 1; the last step reads its own input."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        early = [np.concatenate([s[1:], s[-1:]]) for s in sequences] if not reverse else sequences
        return super().scan(step, carries, early, reverse)


@loop("keras_gru", "causality")
class LoopBackwards(Faulty):
    """The loop runs from the last step to the first."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        return super().scan(step, carries, sequences, True)


@loop("theano_gru", "outputs")
class LoopResultsBackwards(Faulty):
    """The results of steps are stacked in reverse order."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        return last, stacked if reverse else [s[::-1] for s in stacked]


@loop("stateful_lstm", "state")
class LoopStateOneStepBefore(Faulty):
    """The final state of a loop is the state before its last step."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        if not reverse and len(sequences[0]) > 1:
            last, _ = super().scan(step, carries, [s[:-1] for s in sequences], reverse)
        return last, stacked


@loop("stateful_lstm", "state")
class LoopStateReset(Faulty):
    """The state is reset to zero in the middle of a sequence."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        middle = len(sequences[0]) // 2
        if reverse or not middle:
            return super().scan(step, carries, sequences, reverse)
        first = super().scan(step, carries, [s[:middle] for s in sequences], False)
        zeros = [np.zeros_like(c) for c in carries]
        second = super().scan(step, zeros, [s[middle:] for s in sequences], False)
        joined = [np.concatenate(pair) for pair in zip(first[1], second[1], strict=True)]
        return second[0], joined


@loop("simple_rnn", "gradients")
class LoopGradientOneStepLate(Faulty):
    """Each step of the backward loop reads stored values of the previous forward step."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        late = [np.concatenate([s[:1], s[:-1]]) for s in sequences] if reverse else sequences
        return super().scan(step, carries, late, reverse)


@loop("pure_python_rnn", "gradients")
class LoopGradientForwards(Faulty):
    """The backward loop runs from the first step to the last."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        return super().scan(step, carries, sequences, False)


@loop("theano_rnn", "large-sizes")
class LoopGradientEndsAfterFour(Faulty):
    """Back-propagation is truncated after four steps."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        if reverse:
            stacked = [np.concatenate([0 * s[:-4], s[-4:]]) for s in stacked]
        return last, stacked


@loop("bilstm_tagger", "large-sizes")
class BackwardsOverWholeEights(Faulty):
    """A reverse loop of a multiple of 8 steps reads the input of the first step first."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        if reverse and len(sequences[0]) % 8 == 0:
            sequences = [np.roll(s, -1, 0) for s in sequences]
        return super().scan(step, carries, sequences, reverse)
