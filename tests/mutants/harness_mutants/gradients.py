"""Faults in gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.language.model import load_spec
from harness.runtime.session import Session
from harness_mutants.definitions import altered_text
from harness_mutants.registry import BOTH, session

Tensors = dict[str, Any]


class AlteredGradients(Session):
    """A session that alters its gradients in gradient checks and in training."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        """Return the wrong gradients by name."""
        raise NotImplementedError

    def gradient_function(self, phase: Any, mode: Any) -> Any:
        inner = super().gradient_function(phase, mode)

        def function(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            results, gradients = inner(variables, constants)
            return results, gradients | self.alter(gradients, variables, constants)

        return function


@session("theano_gru", "gradients")
class GradientMissing(AlteredGradients):
    """All gradients of one layer are zero."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: 0 * g for n, g in gradients.items() if n.startswith("out.")}


@session("keras_gru", "gradients", BOTH)
class GradientOfBiasMissing(AlteredGradients):
    """The gradient of one recurrent bias is zero."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {"gru.b_r": 0 * gradients["gru.b_r"]}


@session("theano_rnn", "gradients", BOTH)
class GradientOfInitialStateMissing(AlteredGradients):
    """The gradient of the trainable initial state is zero."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {"input.h0": 0 * gradients["input.h0"]}


@session("stateful_lstm", "cotangent-gradients")
class GradientOfCarriedStateMissing(AlteredGradients):
    """The gradient of the state that a batch starts from is zero."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: 0 * g for n, g in gradients.items() if n.startswith("state.")}


@session("stateful_lstm", "cotangent-gradients")
class GradientThroughNewStateMissing(AlteredGradients):
    """The gradient with respect to the new state is ignored."""

    def gradient_function(self, phase: Any, mode: Any) -> Any:
        inner = super().gradient_function(phase, mode)

        def function(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            deaf = {
                n: 0 * t if n.startswith("cotangent.state.") else t for n, t in constants.items()
            }
            return inner(variables, deaf)  # type: ignore[no-any-return]

        return function

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {}


@session("sequence_rnn", "gradients")
class GradientOverBatch(AlteredGradients):
    """Gradients are divided by the batch size a second time."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        return {n: g / len(constants["input.chars"]) for n, g in gradients.items()}


@session("theano_gru", "gradients")
class GradientClippedByValue(AlteredGradients):
    """Gradients are clipped to [-1, 1]."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: np.clip(g, -1, 1) for n, g in gradients.items()}


@session("pure_python_rnn", "gradients")
class GradientClippedByNorm(AlteredGradients):
    """Gradients are scaled to a norm of at most 1."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        norm = np.sqrt(sum(np.sum(g * g) for g in gradients.values()))
        return {n: g / np.maximum(norm, 1).astype(g.dtype) for n, g in gradients.items()}


@session("theano_gru", "gradients")
class GradientsSwapped(AlteredGradients):
    """The gradients of two parameters with the same shape are swapped."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {"gru.U_z": gradients["gru.U_r"], "gru.U_r": gradients["gru.U_z"]}


@session("simple_rnn", "gradients")
class GradientTransposed(AlteredGradients):
    """The gradient of a square matrix is transposed."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {"rnn.U": np.transpose(gradients["rnn.U"])}


@session("theano_rnn", "gradients")
class GradientNegated(AlteredGradients):
    """The sign of a single gradient is reversed."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {"rnn.c": -gradients["rnn.c"]}


@session("pure_python_rnn", "gradients")
class GradientIsAScalar(AlteredGradients):
    """All entries of a matrix get the same gradient (``dot`` instead of ``outer``)."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        exact = gradients["rnn.U"]
        return {"rnn.U": np.full_like(exact, np.trace(exact))}


@session("sequence_onehot", "repeatability")
class GradientAccumulates(AlteredGradients):
    """Gradients accumulate over calls instead of starting from zero."""

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        self._sum: Tensors = {}
        super().__init__(*arguments, **choices)

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._sum = {}

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        fits = {n: t for n, t in self._sum.items() if t.shape == gradients[n].shape}
        self._sum = {n: g + fits.get(n, 0) for n, g in gradients.items()}
        return self._sum


@session("first_rnn", "repeatability")
class GradientOfLastCall(AlteredGradients):
    """From the second call on, the gradients of the previous call are returned."""

    _last: Tensors | None = None

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        last, self._last = self._last or gradients, gradients
        return last


@session("three_char", "gradients", BOTH)
class GradientOfLastUseOnly(AlteredGradients):
    """The gradient of a shared layer includes its last call only."""

    def __init__(self, backend: Any, training: Any, inference: Any, **choices: Any) -> None:
        super().__init__(backend, training, inference, **choices)
        calls = ("dense_in(embed_1(c1))", "dense_in(embed_2(c2))")
        replace = {call: f"stop_gradient({call})" for call in calls}
        spec = load_spec(training.name, overrides=altered_text("model", training.name, replace))
        sizes = {n: training.sizes[n] for n in spec.model.sizes}
        programs = (spec.program("training", **sizes), spec.program("inference", **sizes))
        self._detached = Session(backend, *programs, **choices)

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        mode = "cotangents" if any(n.startswith("cotangent.") for n in constants) else "loss"
        function = self._detached.gradient_function("training", mode)
        _, partial = function(variables, constants)
        return {n: g for n, g in partial.items() if n.startswith("dense_in.")}


@session("first_rnn", "gradients")
class GradientDividedByUses(AlteredGradients):
    """The gradient of a shared layer is the mean over its calls instead of the sum."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: g / 8 for n, g in gradients.items() if n.startswith("dense_in.")}


@session("simple_rnn", "index-zero", BOTH)
class TargetsOfZeroIgnored(Session):
    """All gradients are zero if all targets are class 0, as if class 0 were padding."""

    def gradients(self, phase: Any, inputs: Any, state: Any, targets: Any, *others: Any) -> Any:
        results, found = super().gradients(phase, inputs, state, targets, *others)
        empty = not any(np.any(array) for array in targets.values())
        return results, {n: 0 * g if empty else g for n, g in found.items()}


@session("stateful_lstm", "initial-values", BOTH)
class ScaleOfOnesFrozen(AlteredGradients):
    """The gradient of a scale is zero while all its entries are 1, as at the start of training."""

    def alter(self, gradients: Tensors, variables: Tensors, _: Tensors) -> Tensors:
        frozen = {n for n, v in variables.items() if n.endswith(".gamma") and np.all(v == 1)}
        return {n: 0 * g for n, g in gradients.items() if n in frozen}
