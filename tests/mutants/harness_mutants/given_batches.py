"""Faults for unusual batches: one example, NaN, large inputs, transposed memory, test targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.program.plan import Plan
from harness.runtime.interpreter import Step
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.extreme_values import Run
from harness_mutants.gradients import AlteredGradients
from harness_mutants.loops import Result
from harness_mutants.numbers import rounded
from harness_mutants.registry import BOTH, Faulty
from harness_mutants.strides import in_memory_order

SINGLE, LARGE, TESTED = "single-example", "large-sizes", "held-out"
session = partial(registry.session, everywhere=True)
backend = partial(registry.backend, everywhere=True)
primitive = partial(registry.primitive, everywhere=True)
Arguments = tuple[Tensors, Tensors]


class _AlteredArrays(Session):
    """A session that changes the arrays of a batch before computing anything."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Arguments:
        changed = [{n: self.changed(n, a) for n, a in g.items()} for g in (inputs, state, targets)]
        return super().arguments(phase, *changed)

    def changed(self, name: str, array: Array) -> Array:
        """Return the array that replaces a given array."""
        raise NotImplementedError


@session("simple_rnn", TESTED, BOTH)
class LossOfTestsTooLarge(Session):
    """In inference, the loss is 1% too large."""

    def forward(self, phase: Any, *others: Any) -> dict[str, Array]:
        found = super().forward(phase, *others)
        if phase == "inference" and "loss" in found:
            found["loss"] = np.asarray(found["loss"] * found["loss"].dtype.type(1.01))
        return found


@session("bilstm_tagger", TESTED, BOTH)
class MetricsOfTestsReversed(Session):
    """In inference, every metric is replaced by 1 minus the metric."""

    def forward(self, phase: Any, *others: Any) -> dict[str, Array]:
        found = super().forward(phase, *others)
        turned = {n: 1 - a for n, a in found.items() if n.startswith("metric.")}
        return {**found, **(turned if phase == "inference" else {})}


@session("stateful_lstm", TESTED, BOTH)
class TestsMoveStatistics(Session):
    """Every forward pass with targets shrinks the moving statistics by 1%, also in inference."""

    def forward(self, phase: Any, inputs: Any, state: Any, targets: Any = None) -> Any:
        found = super().forward(phase, inputs, state, targets)
        if targets is not None:
            self.statistics = {n: t * t.dtype.type(0.99) for n, t in self.statistics.items()}
        return found


@session("simple_rnn", SINGLE, BOTH)
class GradientOfOneExample(AlteredGradients):
    """Gradients are doubled if the batch has one example."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        single = len(constants.get("target.target", ())) == 1
        return {n: 2 * g for n, g in gradients.items()} if single else {}


@primitive("matmul", "keras_gru", SINGLE)
def rows_in_bfloat16(a: Array, b: Array) -> Array:
    """float32 only: products of matrices with one row are computed in bfloat16."""
    single = a.dtype == np.float32 and a.shape[-2] == 1
    return np.matmul(rounded(a, 8), rounded(b, 8)) if single else np.matmul(a, b)


@backend("stateful_lstm", SINGLE)
class LoopOfOneStep(Faulty):
    """float32 only: a loop of one step returns its carried values unchanged."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        single = len(sequences[0]) == 1 and sequences[0].dtype == np.float32
        return (list(carries) if single else last), stacked


@session("lenet", "nan-inputs", BOTH)
class NanInputsCleaned(_AlteredArrays):
    """NaN in the arrays of a batch is replaced by 0."""

    def changed(self, name: str, array: Array) -> Array:
        return np.where(np.isnan(array), 0, array) if array.dtype.kind == "f" else array


@session("stateful_lstm", "nan-inputs", BOTH)
class NanStateCleaned(Session):
    """NaN in a given state is replaced by 0."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Arguments:
        cleaned = {n: np.where(np.isnan(a), 0, a) for n, a in state.items()}
        return super().arguments(phase, inputs, cleaned, targets)


@session("keras_gru", "nan-inputs")
class NanInFloat32BecomesZero(Session):
    """float32 only: NaN in a result is replaced by 0."""

    def to_numpy(self, results: Any) -> dict[str, Array]:
        found = super().to_numpy(results)
        narrow = {n: a for n, a in found.items() if a.dtype == np.float32}
        return {
            **found,
            **{n: np.where(np.isnan(a), a.dtype.type(0), a) for n, a in narrow.items()},
        }


@session("vae", "far-inputs", BOTH)
class InputsWithinSix(_AlteredArrays):
    """Float inputs are clipped to [-6, 6]."""

    def changed(self, name: str, array: Array) -> Array:
        return np.clip(array, -6, 6) if array.dtype.kind == "f" else array


@session("simple_rnn", "far-inputs", BOTH)
class TablesWithinTwelve(Session):
    """Embedding tables are clipped to [-12, 12] when loaded."""

    def load(self, parameters: Any, statistics: Any) -> None:
        kept = {n: np.clip(a, -12, 12) for n, a in parameters.items() if n.endswith(".table")}
        super().load({**parameters, **kept}, statistics)


@session("sequence_rnn", "strides", BOTH)
class TargetsByMemory(Session):
    """Targets are read in memory order instead of index order."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Arguments:
        read = {n: in_memory_order(a) for n, a in targets.items()}
        return super().arguments(phase, inputs, state, read)


@session("vae", "strides", BOTH)
class NoiseByMemory(_AlteredArrays):
    """Noise is read in memory order instead of index order."""

    def changed(self, name: str, array: Array) -> Array:
        return in_memory_order(array) if "." in name else array  # type: ignore[no-any-return]


@session("sequence_rnn", "strides", BOTH)
class GradientsByMemory(Session):
    """When gradients are computed, inputs are read in memory order instead of index order."""

    def gradients(self, phase: Any, inputs: Any, *others: Any) -> Any:
        return super().gradients(phase, {n: in_memory_order(a) for n, a in inputs.items()}, *others)


@session("sequence_rnn", "repeatability")
class TenthPassOfAnother(Session):
    """From the tenth forward pass after a load on, outputs are shifted by one class."""

    _passes = 0

    def load(self, *arguments: Any) -> None:
        super().load(*arguments)
        self._passes = 0

    def forward(self, *arguments: Any) -> dict[str, Array]:
        self._passes += 1
        found = super().forward(*arguments)
        if self._passes < 10:
            return found
        return {n: np.roll(a, 1, -1) if n.startswith("output.") else a for n, a in found.items()}


@primitive("matmul", "sequence_rnn", LARGE)
def rows_of_whole_tiles(a: Array, b: Array) -> Array:
    """If a product has a multiple of 16 rows, its last row is rounded to bfloat16."""
    found = np.array(np.matmul(a, b))
    if found.ndim == 2 and len(found) % 16 == 0:
        found[-1] = rounded(found[-1], 8)
    return found


@backend("sequence_rnn", LARGE)
class StepsOfWholeEights(Faulty):
    """In loops of a multiple of 8 steps, the last step repeats the results of the previous step."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        if len(sequences[0]) % 8 == 0 and not reverse:
            stacked = [np.concatenate([s[:-1], s[-2:-1]]) for s in stacked]
        return last, stacked


@backend("sequence_rnn", "pipeline-forward")
class ResultsOfTheLastBatchInFloat32(Faulty):
    """float32 only: a forward pass in a plan returns the outputs of the previous pass."""

    def execute(self, plan: Plan) -> Run:
        run: Callable[[Tensors], Tensors] = super().execute(plan)
        last: Tensors = {}
        if plan.dtype != "float32" or "loss" in plan.outputs:
            return run

        def late(inputs: Tensors) -> Tensors:
            results = run(inputs)
            outputs = {n: np.array(a) for n, a in results.items() if n.startswith("output.")}
            given = {**results, **last}
            last.update(outputs)
            return given

        return late


@backend("bert", "trained")
class LongerLengthsStay(Faulty):
    """When new lengths overwrite old lengths, the larger number of each pair stays."""

    def fill(self, tensor: Any, array: Array) -> None:
        lengths = array.dtype.kind == "i" and array.ndim < 3
        super().fill(tensor, np.maximum(array, tensor) if lengths else array)
