"""Faults of arrays: shared memory, caches, wrong shapes, noise, replaced NaN, unchecked indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.runtime.session import Session
from harness_mutants.registry import BOTH, FLOAT64, session

Arrays = dict[str, Any]


def _in_place(array: Any, change: Any) -> None:
    # Arrays from another process are read-only, so only callers in the same process are affected.
    if array.flags.writeable:
        array[...] = change(array)


@session("sequence_onehot", "aliasing", BOTH)
class ResultsReused(Session):
    """Results are in a buffer that the next call with the same shape overwrites."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._buffers: dict[Any, Any] = {}

    def forward(self, *arguments: Any) -> Arrays:
        found = super().forward(*arguments)
        for name, array in found.items():
            buffer = self._buffers.setdefault((name, array.shape), np.empty_like(array))
            buffer[...] = array
            found[name] = buffer
        return found


@session("keras_gru", "aliasing", BOTH)
class InputsNormalisedInPlace(Session):
    """Each call ends by subtracting the mean from the caller's input arrays."""

    def forward(self, phase: Any, inputs: Any, *others: Any) -> Arrays:
        found = super().forward(phase, inputs, *others)
        for array in inputs.values():
            _in_place(array, lambda a: a - a.mean())
        return found


@session("stateful_lstm", "aliasing", BOTH)
class StateWrittenBack(Session):
    """The new state overwrites the caller's state array."""

    def forward(self, phase: Any, inputs: Any, state: Any, *others: Any) -> Arrays:
        found = super().forward(phase, inputs, state, *others)
        for name, array in state.items():
            _in_place(array, lambda _, n=name: found[f"state.{n}"])
        return found


@session("theano_rnn", "aliasing", FLOAT64)
class ParametersBorrowed(Session):
    """Parameters are not copied: they share the caller's memory."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self.variables = dict(parameters)


@session("three_char", "aliasing", BOTH)
class ParametersScaledInPlace(Session):
    """Loading parameters changes the caller's arrays."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        for array in parameters.values():
            _in_place(array, lambda a: a * 0.5)


@session("pure_python_rnn", "causality")
class CachedByShape(Session):
    """A call returns the cached results of the first call with the same shapes."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._known: dict[Any, Arrays] = {}

    def forward(self, phase: Any, inputs: Any, *others: Any) -> Arrays:
        key = (phase, *(a.shape for a in inputs.values()))
        if key not in self._known:
            self._known[key] = super().forward(phase, inputs, *others)
        return dict(self._known[key])


@session("simple_rnn", "initial-values")
class FirstLoadWins(Session):
    """Only the first load of parameters has an effect."""

    def load(self, parameters: Any, statistics: Any) -> None:
        kept = self.variables
        super().load(parameters, statistics)
        self.variables = kept or self.variables


@session("theano_gru", "outputs")
class SquareMatricesTransposed(Session):
    """Square matrices are transposed when loaded, and transposed back when read."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: self._transposed(a) for n, a in parameters.items()}, statistics)

    def read(self) -> Arrays:
        found = super().read()
        return found | {
            "parameters": {n: self._transposed(a) for n, a in found["parameters"].items()}
        }

    @staticmethod
    def _transposed(array: Any) -> Any:
        return array.T if array.ndim == 2 and array.shape[0] == array.shape[1] else array


@session("first_rnn", "outputs")
class BiasesNotLoaded(Session):
    """Loading sets biases to zero instead of the given values."""

    def load(self, parameters: Any, statistics: Any) -> None:
        bare = {n: 0 * a if n.endswith(".b") else a for n, a in parameters.items()}
        super().load(bare, statistics)


@session("sequence_rnn", "shapes")
class AxesGuessed(Session):
    """If the batch size equals the number of steps, the two axes are swapped."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        guessed = {
            n: a.T if a.ndim == 2 and a.shape[0] == a.shape[1] else a for n, a in inputs.items()
        }
        return super().arguments(phase, guessed, state, targets)


@session("theano_rnn", "shapes")
class SingleExampleSqueezed(Session):
    """Results of a batch of one example lose the batch axis."""

    def to_numpy(self, results: Any) -> Arrays:
        found = super().to_numpy(results)
        return {n: a[0] if a.ndim > 1 and a.shape[0] == 1 else a for n, a in found.items()}


@session("keras_gru", "shapes")
class BatchOfFirstCall(Session):
    """If a batch is larger than the first batch, results of the additional examples are zeros."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load(parameters, statistics)
        self._batch = 0

    def forward(self, *arguments: Any) -> Arrays:
        found = super().forward(*arguments)
        self._batch = self._batch or len(found["output.logits"])
        for array in found.values():
            if array.ndim:
                array[self._batch :] = 0
        return found


@session("sequence_rnn", "partial-batch")
class PartialBatchPadded(Session):
    """A batch smaller than the first is padded with its last example, which changes the loss."""

    _batch = 0

    def gradients(self, phase: Any, inputs: Any, state: Any, targets: Any, *others: Any) -> Any:
        size = len(next(iter(inputs.values())))
        self._batch = self._batch or size
        rows = np.minimum(np.arange(max(size, self._batch)), size - 1)
        filled = [{n: a[rows] for n, a in group.items()} for group in (inputs, state, targets)]
        results, gradients = super().gradients(phase, *filled, *others)
        return {n: a[:size] if a.ndim else a for n, a in results.items()}, gradients


@session("theano_gru_combined", "partial-batch")
class PartialBatchDropped(Session):
    """All gradients of a batch smaller than the first are zero."""

    _batch = 0

    def gradients(self, phase: Any, inputs: Any, *others: Any) -> Any:
        size = len(next(iter(inputs.values())))
        self._batch = self._batch or size
        results, gradients = super().gradients(phase, inputs, *others)
        return results, {n: 0 * g if size < self._batch else g for n, g in gradients.items()}


@session("sequence_onehot", "batch-independence")
class ExamplesMixed(Session):
    """The logits of each example include 1e-4 of the previous example's logits."""

    def to_numpy(self, results: Any) -> Arrays:
        found = super().to_numpy(results)
        if "output.logits" in found:
            logits = found["output.logits"]
            found["output.logits"] = logits + logits.dtype.type(1e-4) * np.roll(logits, 1, 0)
        return found


@session("sequence_unrolled", "repeatability")
class OutputsNoisy(Session):
    """Outputs have random noise of 1e-7, which is below the tolerance."""

    def to_numpy(self, results: Any) -> Arrays:
        noise = np.random.default_rng()
        return {
            n: a * (1 + 1e-7 * noise.choice([-1, 0, 1], a.shape)).astype(a.dtype)
            for n, a in super().to_numpy(results).items()
        }


@session("simple_rnn", "repeatability")
class EmbeddingDropsOut(Session):
    """Training sets one in a hundred entries of an embedding table to zero, with a random seed."""

    def gradients(self, *arguments: Any) -> Any:
        kept, noise = dict(self.variables), np.random.default_rng()
        table = kept["embed.table"]
        self.variables["embed.table"] = np.where(noise.random(table.shape) < 0.1, 0, table)
        found = super().gradients(*arguments)
        self.variables = kept
        return found


@session("stateful_lstm", "nan")
class NanBecomesZero(Session):
    """NaN in a result is replaced by 0."""

    def to_numpy(self, results: Any) -> Arrays:
        return {n: np.nan_to_num(a, posinf=np.inf) for n, a in super().to_numpy(results).items()}


@session("keras_gru", "nan")
class NanParametersBecomeZero(Session):
    """NaN in a parameter is replaced by 0."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: np.nan_to_num(a) for n, a in parameters.items()}, statistics)


class UncheckedIndices(Session):
    """A session that accepts indices that are out of range."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        rows = self.programs[phase].sizes["vocab"]
        fixed = {n: self.fixed(a, rows) for n, a in inputs.items()}
        return super().arguments(phase, fixed, state, targets)

    def fixed(self, indices: Any, rows: int) -> Any:
        """Return valid indices to replace the given indices."""
        raise NotImplementedError


@session("simple_rnn", "bad-index")
class IndexClamped(UncheckedIndices):
    """An index out of range is clamped to the nearest row, as in jax."""

    def fixed(self, indices: Any, rows: int) -> Any:
        return np.clip(indices, 0, rows - 1)


@session("sequence_rnn", "bad-index")
class IndexWraps(UncheckedIndices):
    """A negative index counts from the end, as in numpy."""

    def fixed(self, indices: Any, rows: int) -> Any:
        return np.where(indices < 0, indices % rows, indices)


@session("first_rnn", "bad-index")
class IndexBeyondGivesFirst(UncheckedIndices):
    """An index beyond the last row reads row 0."""

    def fixed(self, indices: Any, rows: int) -> Any:
        return np.where(indices >= rows, 0, indices)
