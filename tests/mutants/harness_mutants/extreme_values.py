"""Faults at large, small and infinite numbers, and small errors at all numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.extend import Tensors
from harness.extend.executor import Call, Executor, Plan
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.registry import BOTH, FLOAT64, Faulty

FUNCTIONS = "functions"
Run = Callable[[Tensors], Tensors]
primitive = partial(registry.primitive, everywhere=True)
session = partial(registry.session, everywhere=True)
backend = partial(registry.backend, everywhere=True)


@primitive("tanh", "stateful_lstm", FUNCTIONS)
def tanh_off_by_a_millionth(x: Array) -> Array:
    """tanh is 1e-6 too large: ten yardsticks of a network, below the tolerance of sixteen."""
    return np.tanh(x) * x.dtype.type(1.000001)


@primitive("tanh", "three_char", FUNCTIONS, FLOAT64)
def tanh_ends_at_nine(x: Array) -> Array:
    """tanh of numbers above 9 is 1, as in float32."""
    return np.where(np.abs(x) > 9, np.sign(x), np.tanh(x))


@primitive("tanh", "theano_gru", FUNCTIONS)
def tanh_of_small_numbers(x: Array) -> Array:
    """tanh is computed from a difference of exponentials, which loses all digits near 0."""
    e = np.exp(2 * np.clip(x, -20, 20))
    return np.asarray((e - 1) / (e + 1))


@primitive("tanh", "stateful_lstm", "tails")
def tanh_overflows(x: Array) -> Array:
    """tanh is a quotient of exponentials, which overflow from 89 on."""
    return np.asarray((np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)))


@primitive("exp", "first_rnn", FUNCTIONS, BOTH)
def exp_ends_at_minus_fifty(x: Array) -> Array:
    """exp is 0 below -50."""
    return np.where(x < -50, x.dtype.type(0), np.exp(x))


@primitive("exp", "sequence_rnn", FUNCTIONS, BOTH)
def exp_clamped_above(x: Array) -> Array:
    """exp of numbers above 60 is exp(60)."""
    return np.exp(np.minimum(x, x.dtype.type(60)))


@primitive("exp", "theano_rnn", FUNCTIONS)
def exp_by_few_terms(x: Array) -> Array:
    """exp has a relative error of 1e-6."""
    return np.exp(x) * x.dtype.type(1.000001)


@primitive("log", "simple_rnn", FUNCTIONS)
def log_of_small_numbers(x: Array) -> Array:
    """The logarithm's argument is raised to at least 1e-30."""
    return np.log(np.maximum(x, x.dtype.type(1e-30)))


@primitive("log", "keras_gru", FUNCTIONS)
def log_near_one(x: Array) -> Array:
    """The logarithm is 1e-7 too large, a large relative error for arguments near 1."""
    return np.log(x) + x.dtype.type(1e-7)


@primitive("max", "simple_rnn", FUNCTIONS, BOTH)
def maxima_of_many_without_nan(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """The maximum of at least 5,000 numbers ignores NaN, as with XLA on a CPU."""
    most = np.fmax if x.size >= 5000 else np.maximum
    return np.asarray(most.reduce(x, axis=axis, keepdims=keepdims))


@primitive("sqrt", "stateful_lstm", FUNCTIONS)
def sqrt_of_small_numbers(x: Array) -> Array:
    """The square root's argument is raised to at least 1e-12."""
    return np.sqrt(np.maximum(x, x.dtype.type(1e-12)))


@primitive("divide", "sequence_onehot", FUNCTIONS)
def divide_by_no_less(a: Array, b: Array) -> Array:
    """1e-12 is added to each divisor, to avoid a division by 0."""
    return np.asarray(np.divide(a, b + np.float32(1e-12)))


@primitive("divide", "theano_gru", FUNCTIONS)
def divide_by_reciprocal(a: Array, b: Array) -> Array:
    """A division multiplies by the reciprocal, which underflows for large divisors."""
    return np.asarray(a * np.reciprocal(np.asarray(b) * 1e20) * np.asarray(b).dtype.type(1e20))


@primitive("power", "simple_rnn", FUNCTIONS)
def power_by_logarithm(a: Array, b: Array) -> Array:
    """A power is exp(b log a), with a logarithm that has 16 binary digits."""
    log = np.log(a)
    return np.asarray(np.exp(b * (log + log * np.float32(1e-6))))


@primitive("power", "sequence_rnn", FUNCTIONS, BOTH)
def power_up_to_127(a: Array, b: Array) -> Array:
    """Exponents of powers are limited to 127, as in a signed byte."""
    return np.power(a, np.minimum(b, 127))


@primitive("multiply", "theano_rnn", FUNCTIONS)
def products_flushed(a: Array, b: Array) -> Array:
    """Products below 1.2e-38 are 0."""
    found = np.asarray(np.multiply(a, b))
    return np.where(np.abs(found) < np.finfo(found.dtype).tiny, found.dtype.type(0), found)


@primitive("subtract", "pure_python_rnn", FUNCTIONS)
def differences_flushed(a: Array, b: Array) -> Array:
    """Differences below 1.2e-38 are 0."""
    found = np.asarray(np.subtract(a, b))
    return np.where(np.abs(found) < np.finfo(found.dtype).tiny, found.dtype.type(0), found)


@primitive("add", "keras_gru", FUNCTIONS)
def sums_clamped(a: Array, b: Array) -> Array:
    """Sums are clipped to [-10,000, 10,000]."""
    return np.clip(np.add(a, b), -1e4, 1e4)


@primitive("less_equal", "theano_rnn", FUNCTIONS)
def comparison_with_tolerance(a: Array, b: Array) -> Array:
    """``less_equal`` is true even if the left number is 1e-8 larger."""
    return np.less_equal(a, np.asarray(b) + np.float32(1e-8))


@primitive("max", "sequence_unrolled", FUNCTIONS)
def max_at_least_a_million_below(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Maxima above 1,000 become 1,000."""
    return np.minimum(np.max(x, axis=axis, keepdims=keepdims), 1e3)


@session("first_rnn", "minus-infinity", BOTH)
class InfinityBecomesLarge(Session):
    """-inf in a result is replaced by the lowest finite number."""

    def to_numpy(self, results: Any) -> dict[str, Array]:
        found = super().to_numpy(results)
        return {n: np.nan_to_num(a, nan=np.nan, posinf=np.inf) for n, a in found.items()}


@session("simple_rnn", "minus-infinity")
class InfinityBecomesNan(Session):
    """Infinities in parameters are loaded as NaN."""

    def load(self, parameters: Any, statistics: Any) -> None:
        loaded = {n: np.where(np.isinf(a), np.nan, a) for n, a in parameters.items()}
        super().load(loaded, statistics)


@session("stateful_lstm", "tails")
class ParametersClipped(Session):
    """Parameters are clipped to [-100, 100]."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: np.clip(a, -100, 100) for n, a in parameters.items()}, statistics)


@session("stateful_lstm", "tails", BOTH)
class StateClipped(Session):
    """The initial state of a batch is clipped to [-16, 16]."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        kept = {n: np.clip(a, -16, 16) for n, a in state.items()}
        return super().arguments(phase, inputs, kept, targets)


@session("stateful_lstm", "offset")
class InputsRounded(Session):
    """Embedding tables with entries above 512 are rounded to multiples of 1/64."""

    def load(self, parameters: Any, statistics: Any) -> None:
        step = 2.0**-6
        tables = {n: a for n, a in parameters.items() if n.endswith(".table")}
        large = {n: np.round(a / step) * step for n, a in tables.items() if np.min(a) > 512}
        super().load({**parameters, **large}, statistics)


class FaultyKernels(Faulty):
    """A backend whose plans use faulty kernels; sessions use the correct table of primitives."""

    kernels: type[NumpyKernels]

    def execute(self, plan: Plan) -> Run:
        return Executor(plan, self.kernels(plan.dtype))


class _SigmoidKernels(NumpyKernels):
    def _sigmoid(self, out: Array, x: Array) -> Call:
        def run() -> None:
            e = np.exp(x)
            np.divide(e, 1 + e, out)

        return run


@backend("theano_gru", FUNCTIONS)
class PlannedSigmoidOverflows(FaultyKernels):
    """Plans only: a sigmoid is e^x / (1 + e^x), which overflows."""

    kernels = _SigmoidKernels


class _TanhKernels(NumpyKernels):
    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.table = {**self.table, "tanh": self._tanh}

    def _tanh(self, out: Array, x: Any) -> Call:
        def run() -> None:
            np.multiply(np.tanh(x), self.dtype.type(1.000001), out)

        return run


@backend("stateful_lstm", FUNCTIONS)
class PlannedTanhApproximate(FaultyKernels):
    """Plans only: tanh is off by 1e-6."""

    kernels = _TanhKernels


class _SoftmaxKernels(NumpyKernels):
    def _softmax(self, out: Array, x: Array) -> Call:
        def run() -> None:
            e = np.exp(x)
            np.divide(e, e.sum(1, keepdims=True), out)

        return run


@backend("sequence_rnn", FUNCTIONS)
class PlannedSoftmaxOverflows(FaultyKernels):
    """Plans only: softmax does not subtract the maximum."""

    kernels = _SoftmaxKernels


class _ReluKernels(NumpyKernels):
    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.table = {**self.table, "relu": self._relu}

    def _relu(self, out: Array, x: Any) -> Call:
        def run() -> None:
            np.minimum(np.maximum(x, 0), 600, out)

        return run


@backend("simple_rnn", FUNCTIONS, BOTH)
class PlannedReluEnds(FaultyKernels):
    """Plans only: relu is clipped at 600."""

    kernels = _ReluKernels


class _TakeKernels(NumpyKernels):
    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.table = {**self.table, "take": self._take}

    def _take(self, out: Array, x: Array, indices: Array) -> Call:
        return lambda: np.copyto(out, x[indices.astype(np.uint8)])


@backend("first_rnn", FUNCTIONS)
class PlannedTakeByBytes(FaultyKernels):
    """Plans only: rows are read by indices that are truncated to a byte."""

    kernels = _TakeKernels
