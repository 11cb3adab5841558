"""Faults in large inference batches, long sequences, later shapes, or after failed calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.language.model import load_spec
from harness.program.ir import Phase, Program
from harness.runtime.session import Session
from harness_mutants.definitions import AlteredDefinitions, altered_text
from harness_mutants.gradients import AlteredGradients
from harness_mutants.registry import BOTH, model_of, session

LARGE = "large-sizes"
Tensors = dict[str, Any]


class _AlteredInference(Session):
    """A session whose method ``alter`` overwrites the outputs or the state of an inference."""

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
class InferenceAbove32(_AlteredInference):
    """Inference returns the results of examples 1, 2, ... for examples 33, 34, ..."""

    def alter(self, output: Any) -> None:
        output[32:] = output[: max(len(output) - 32, 0)].copy()


@session("sequence_rnn", LARGE)
class InferenceOfLongTexts(_AlteredInference):
    """Inference repeats the output of step 16 for all later steps."""

    def alter(self, output: Any) -> None:
        output[:, 16:] = output[:, 15:16]


@session("stateful_lstm", LARGE)
class InferenceStateAbove32(_AlteredInference):
    """In inference, the new state of example 33 and of all later examples is zero."""

    group = "state."

    def alter(self, output: Any) -> None:
        output[32:] = 0


@session("gpt", "shapes", BOTH)
class LongerThanTheFirst(Session):
    """Outputs of steps beyond the first call's length repeat the last step within this length."""

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
    """A sequence of more than one step that is padded is treated as unpadded."""

    def arguments(
        self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays
    ) -> tuple[Tensors, Tensors]:
        lengths, full = np.asarray(inputs["lengths"]), np.shape(inputs["chars"])[1]
        taken = np.where((lengths > 1) & (lengths < full), full, lengths)
        return super().arguments(phase, {**inputs, "lengths": taken}, state, targets)


@session("sequence_rnn", LARGE)
class GradientOfWhole32s(AlteredGradients):
    """If the batch size is a multiple of 32, gradients are 1/30 too small."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        counts = [len(t) for n, t in constants.items() if n.startswith("input.")]
        whole = bool(counts) and max(counts) % 32 == 0
        return {n: g * g.dtype.type(0.97) for n, g in gradients.items()} if whole else {}


@session("first_rnn", "bad-index", BOTH)
class SpoiltByFailure(Session):
    """After a failed call, all results are halved."""

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
class SpoiltByFailedTraining(AlteredGradients):
    """After a failed training step, all gradients are halved."""

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
class GradientOf64Examples(AlteredGradients):
    """If the batch has exactly 64 examples, gradients are off by 1%."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        count = max(len(t) for n, t in constants.items() if n.startswith("target."))
        return {n: 1.01 * g for n, g in gradients.items()} if count == 64 else {}


@session("simple_rnn", "partial-batch", BOTH)
class AsFewAsOnce(AlteredGradients):
    """Gradients are halved if the batch is larger than the smallest batch so far."""

    fewest = 0

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        super().load(parameters, statistics)
        self.fewest = 0

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        count = max(len(t) for n, t in constants.items() if n.startswith("input."))
        self.fewest = min(count, self.fewest or count)
        return {n: 0.5 * g for n, g in gradients.items()} if count > self.fewest else {}


@session("theano_gru", "repeatability", BOTH)
class SpoiltByManyInferences(AlteredGradients):
    """After four consecutive inferences, all gradients are halved."""

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


class _AlteredAbove128(AlteredDefinitions):
    """A session that changes a definition only in models with a size above 128."""

    def _read(self, program: Program, phase: Phase) -> Program:
        return super()._read(program, phase) if max(program.sizes.values()) > 128 else program


@session("sequence_rnn", LARGE)
class SoftmaxOfManyClassesOverflows(_AlteredAbove128):
    """If a model has a size above 128, softmax does not subtract the maximum."""

    shift = " - stop_gradient(max(x, axis=axis, keepdims=true))"
    spec = load_spec(
        model_of("sequence_rnn"), overrides=altered_text("function", "softmax", {shift: ""})
    )


@session("sequence_rnn", LARGE, BOTH)
class LossShiftedByTheFirst64(_AlteredAbove128):
    """If a model has a size above 128, the loss subtracts the maximum of the first 64 classes."""

    every, first = "max(x, axis=axis,", "max(x[..., :64], axis=-1,"
    spec = load_spec(
        model_of("sequence_rnn"), overrides=altered_text("function", "log_softmax", {every: first})
    )


@session("gpt", LARGE)
class LayerNormOfLargeModelsCancels(_AlteredAbove128):
    """If a model has a size above 128, layer norm computes a variance as E[x^2] - E[x]^2."""

    mean = "mean({}, axis=-1, keepdims=1)"
    biased = mean.format("center ** 2")
    of_squares = f"{mean.format('x * x')} - {mean.format('x')} ** 2"
    spec = load_spec("gpt", overrides=altered_text("layer", "layer_norm", {biased: of_squares}))
