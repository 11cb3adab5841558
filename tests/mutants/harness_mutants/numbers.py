"""Faults of precision: a wrong dtype, or an approximation."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import Array
from harness.runtime.session import Session
from harness_mutants.registry import FLOAT32, FLOAT64, primitive, session


def rounded(x: Array, bits: int) -> Array:
    """Round float32 numbers to ``bits`` of 24 binary digits: 8 for bfloat16, 11 for TF32."""
    drop = 24 - bits
    pattern = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    kept = (pattern + (1 << (drop - 1))) >> drop << drop
    return np.asarray(kept.astype(np.uint32).view(np.float32), x.dtype)


@primitive("matmul", "sequence_onehot", "outputs", FLOAT32)
def matmul_in_bfloat16(a: Array, b: Array) -> Array:
    """float32 products are computed in bfloat16."""
    return np.matmul(rounded(a, 8), rounded(b, 8))


@primitive("matmul", "theano_rnn", "outputs", FLOAT32)
def matmul_in_tf32(a: Array, b: Array) -> Array:
    """float32 products are computed in TF32, which some GPUs use by default."""
    return np.matmul(rounded(a, 11), rounded(b, 11))


@primitive("tensordot", "pure_python_rnn", "gradients", FLOAT32)
def weight_gradients_in_tf32(a: Array, b: Array, axes: Any) -> Array:
    """Gradients of weights are computed in TF32."""
    return np.tensordot(rounded(a, 11), rounded(b, 11), axes)


@primitive("matmul", "simple_rnn", "outputs", FLOAT64)
def matmul_in_float32(a: Array, b: Array) -> Array:
    """float64 products are computed in float32."""
    return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)


@primitive("sum", "theano_gru", "loss", FLOAT32)
def sum_in_float16(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Sums are computed in float16."""
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float16).astype(x.dtype)


@primitive("exp", "theano_rnn", "outputs", FLOAT64)
def exp_in_float32(x: Array) -> Array:
    """float64 exponentials are computed in float32."""
    return np.exp(x.astype(np.float32)).astype(x.dtype)


@primitive("power", "keras_gru", "training", FLOAT64)
def power_in_float32(a: Array, b: Array) -> Array:
    """Powers, such as those of decay rates, are computed in float32."""
    return np.power(np.float32(a), np.float32(b)).astype(np.float64)


@primitive("tanh", "theano_gru", "outputs", FLOAT32)
def tanh_by_fraction(x: Array) -> Array:
    """tanh is a rational approximation with an error of 1e-6 near 0."""
    s = x * x
    y = x * (105 + s * 10) / (105 + s * (45 + s))
    return np.clip(y, -1, 1).astype(x.dtype)


@primitive("log", "keras_gru", "loss", FLOAT64)
def log_of_shifted(x: Array) -> Array:
    """1e-7 is added to the logarithm's argument."""
    return np.log(x + 1e-7)


@primitive("sqrt", "stateful_lstm", "outputs", FLOAT32)
def square_root_by_estimate(x: Array) -> Array:
    """Square roots have 12 correct bits, as if a Newton step were missing."""
    return rounded(np.asarray(np.sqrt(x)), 12)


@session("three_char", "outputs", FLOAT64)
class ComputesInFloat32(Session):
    """A float64 session computes in float32 and returns float64."""

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **{**choices, "dtype": "float32"})

    def to_numpy(self, results: dict[str, Any]) -> dict[str, Array]:
        return {n: a.astype(np.float64) for n, a in super().to_numpy(results).items()}


@session("sequence_rnn", "outputs", FLOAT32)
class ReturnsFloat64(Session):
    """Results are converted to float64 when returned."""

    def to_numpy(self, results: dict[str, Any]) -> dict[str, Array]:
        return {n: a.astype(np.float64) for n, a in super().to_numpy(results).items()}


@session("first_rnn", "gradients", FLOAT64)
class ReturnsFloat32(Session):
    """Results are converted to float32 when returned."""

    def to_numpy(self, results: dict[str, Any]) -> dict[str, Array]:
        return {n: a.astype(np.float32) for n, a in super().to_numpy(results).items()}


@session("simple_rnn", "initial-values", FLOAT32)
class LoadsBfloat16(Session):
    """Weights are rounded to bfloat16 when loaded."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: rounded(a, 8) for n, a in parameters.items()}, statistics)


@session("theano_rnn", "initial-values", FLOAT64)
class ReadsFloat32(Session):
    """Parameters are converted to float32 when read."""

    def read(self) -> dict[str, Any]:
        found = super().read()
        narrow = {n: a.astype(np.float32) for n, a in found["parameters"].items()}
        return found | {"parameters": narrow}
