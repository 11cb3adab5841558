"""Faults beyond a size that an inference alone has, or a length, or a second shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.language.model import load_spec
from harness.program.ir import Phase, Program
from harness.runtime.session import Session
from harness_mutants.definitions import Misread, altered
from harness_mutants.gradients import Graded
from harness_mutants.registry import BOTH, model_of, session

LARGE = "large-sizes"
Tensors = dict[str, Any]


class _Inferred(Session):
    """The outputs or the state of an inference, which ``alter`` writes over."""

    group = "output."

    def alter(self, output: Any) -> None:
        raise NotImplementedError

    def forward(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> ArrayDict:
        found = super().forward(phase, inputs, state, targets)
        for name, array in found.items():
            if phase == "inference" and name.startswith(self.group):
                self.alter(array)
        return found


@session("simple_rnn", LARGE)
class InferenceAbove32(_Inferred):
    """From the 33rd example on an inference begins with the first again."""

    def alter(self, output: Any) -> None:
        output[32:] = output[: max(len(output) - 32, 0)].copy()


@session("sequence_rnn", LARGE)
class InferenceOfLongTexts(_Inferred):
    """What comes after 16 steps of an inference is what came at the 16th."""

    def alter(self, output: Any) -> None:
        output[:, 16:] = output[:, 15:16]


@session("stateful_lstm", LARGE)
class InferenceStateAbove32(_Inferred):
    """The state of an inference that the 33rd example and those after it leave is zeros."""

    group = "state."

    def alter(self, output: Any) -> None:
        output[32:] = 0


@session("gpt", "shapes", BOTH)
class LongerThanTheFirst(Session):
    """Steps beyond the longest text until then give what the last of those gives."""

    longest = 0

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.longest = 0

    def forward(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> ArrayDict:
        found = super().forward(phase, inputs, state, targets)
        for array in found.values():
            if array.ndim == 3:
                self.longest = self.longest or array.shape[1]
                array[:, self.longest :] = array[:, self.longest - 1 : self.longest]
        return found


@session("bert", "shapes")
class LengthsBetween(Session):
    """A text of more than one step that is not full is taken to be full."""

    def arguments(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays
    ) -> tuple[Tensors, Tensors]:
        lengths, full = np.asarray(inputs["lengths"]), np.shape(inputs["chars"])[1]
        taken = np.where((lengths > 1) & (lengths < full), full, lengths)
        return super().arguments(phase, {**inputs, "lengths": taken}, state, targets)


@session("sequence_rnn", LARGE)
class GradientOfWhole32s(Graded):
    """Gradients of a multiple of 32 examples are a thirtieth too small."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        counts = [len(t) for n, t in constants.items() if n.startswith("input.")]
        whole = bool(counts) and max(counts) % 32 == 0
        return {n: g * g.dtype.type(0.97) for n, g in gradients.items()} if whole else {}


@session("first_rnn", "bad-index", BOTH)
class SpoiltByFailure(Session):
    """After a call that has failed, results are half of what they are."""

    lost = False

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.lost = False

    def forward(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> ArrayDict:
        try:
            found = super().forward(phase, inputs, state, targets)
        except Exception:
            self.lost = True
            raise
        return {n: a * (0.5 if self.lost else 1.0) for n, a in found.items()}


@session("first_rnn", "bad-index", BOTH)
class SpoiltByFailedTraining(Graded):
    """After a training that has failed, gradients are a half of what they are."""

    lost = False

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.lost = False

    def gradients(self, *given: Any, **options: Any) -> tuple[ArrayDict, ArrayDict]:
        try:
            return super().gradients(*given, **options)
        except Exception:
            self.lost = True
            raise

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: 0.5 * g for n, g in gradients.items()} if self.lost else {}


@session("keras_gru", "single-example", BOTH)
class GradientOf64Examples(Graded):
    """Gradients of exactly 64 examples are a hundredth off."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        count = max(len(t) for n, t in constants.items() if n.startswith("target."))
        return {n: 1.01 * g for n, g in gradients.items()} if count == 64 else {}


@session("simple_rnn", "partial-batch", BOTH)
class AsFewAsOnce(Graded):
    """Gradients of more examples than the fewest until then are a half of what they are."""

    fewest = 0

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.fewest = 0

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        count = max(len(t) for n, t in constants.items() if n.startswith("input."))
        self.fewest = min(count, self.fewest or count)
        return {n: 0.5 * g for n, g in gradients.items()} if count > self.fewest else {}


@session("theano_gru", "repeatability", BOTH)
class SpoiltByManyInferences(Graded):
    """After four inferences in a row, gradients are a half of what they are."""

    inferences = 0

    def forward(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> ArrayDict:
        self.inferences += phase == "inference"
        return super().forward(phase, inputs, state, targets)

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.inferences = 0

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        return {n: 0.5 * g for n, g in gradients.items()} if self.inferences > 3 else {}


class _MisreadAbove128(Misread):
    """The definition is another only in a model that has more than 128 of something."""

    def _read(self, program: Program, phase: Phase) -> Program:
        return super()._read(program, phase) if max(program.sizes.values()) > 128 else program


@session("sequence_rnn", LARGE)
class SoftmaxOfManyClassesOverflows(_MisreadAbove128):
    """A softmax of a model of more than 128 classes is not shifted by the maximum."""

    shift = " - stop_gradient(max(x, axis=axis, keepdims=true))"
    spec = load_spec(
        model_of("sequence_rnn"), overrides=altered("function", "softmax", {shift: ""})
    )


@session("sequence_rnn", LARGE, BOTH)
class LossShiftedByTheFirst64(_MisreadAbove128):
    """A loss of more than 128 classes is shifted by the maximum of the first 64."""

    every, first = "max(x, axis=axis,", "max(x[..., :64], axis=-1,"
    spec = load_spec(
        model_of("sequence_rnn"), overrides=altered("function", "log_softmax", {every: first})
    )


@session("gpt", LARGE)
class LayerNormOfLargeModelsCancels(_MisreadAbove128):
    """The variance of a layer norm is that of squares in a model with more than 128 classes."""

    mean = "mean({}, axis=-1, keepdims=1)"
    biased = mean.format("center ** 2")
    of_squares = f"{mean.format('x * x')} - {mean.format('x')} ** 2"
    spec = load_spec("gpt", overrides=altered("layer", "layer_norm", {biased: of_squares}))
