"""Faults at sizes for which kernels have special code, and for indices that are already sorted.

The sizes are multiples of 16 and powers of two, which are common in real models.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.primitives import PRIMITIVES
from harness.extend.executor import Call
from harness_mutants import registry
from harness_mutants.extreme_values import FaultyKernels
from harness_mutants.loops import Result
from harness_mutants.registry import Faulty

LARGE, FUNCTIONS = "large-sizes", "functions"
primitive = partial(registry.primitive, everywhere=True)
backend = partial(registry.backend, everywhere=True)


@primitive("matmul", "sequence_rnn", LARGE)
def products_of_whole_tiles(a: Array, b: Array) -> Array:
    """A matrix product over a multiple of 16 terms omits the last 16 terms."""
    if a.shape[-1] % 16 == 0:
        a, b = a[..., :-16], b[..., :-16, :]
    return np.asarray(a @ b)


class _TileKernels(NumpyKernels):
    def _matmul(self, out: Array, a: Array, b: Array) -> Call:
        whole = a.shape[-1] % 16 == 0
        return super()._matmul(out, *((a[..., :-16], b[..., :-16, :]) if whole else (a, b)))


@backend("sequence_rnn", LARGE)
class PlannedProductsOfWholeTiles(FaultyKernels):
    """Plans only: a matrix product over a multiple of 16 terms omits the last 16 terms."""

    kernels = _TileKernels


@backend("sequence_rnn", LARGE)
class LoopWithoutItsRest(Faulty):
    """Loops of more than 16 steps: steps after the last multiple of 8 get the previous input."""

    def scan(self, step: Any, carries: Any, sequences: Any, reverse: bool) -> Result:
        length = len(sequences[0]) if sequences else 0
        if length > 16 and length % 8:
            whole = length - length % 8
            sequences = [np.concatenate([s[:whole], s[whole - 1 : -1]]) for s in sequences]
        return super().scan(step, carries, sequences, reverse)


@primitive("matmul", "theano_rnn", LARGE)
def rows_without_their_rest(a: Array, b: Array) -> Array:
    """In products of more than 64 rows, the rows after the last multiple of 8 are zero."""
    found = np.array(a @ b)
    rows = found.shape[0]
    if found.ndim == 2 and rows > 64 and rows % 8:
        found[rows - rows % 8 :] = 0
    return found


def _is_large_power_of_two(terms: int) -> bool:
    return terms >= 64 and terms & (terms - 1) == 0


@primitive("matmul", "sequence_rnn", FUNCTIONS)
def products_of_a_power_of_two(a: Array, b: Array) -> Array:
    """A matrix product over 64, 128, 256 ... terms omits the last term."""
    if _is_large_power_of_two(a.shape[-1]):
        a, b = a[..., :-1], b[..., :-1, :]
    return np.asarray(a @ b)


@primitive("sum", "first_rnn", FUNCTIONS)
def sums_of_a_power_of_two(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A sum along an axis of 64, 128, 256 ... entries omits the last entry."""
    if len(axis) == 1 and _is_large_power_of_two(x.shape[axis[0]]):
        x = np.take(x, np.arange(x.shape[axis[0]] - 1), axis[0])
    return np.sum(x, axis=axis, keepdims=keepdims)


@primitive("max", "three_char", FUNCTIONS)
def maxima_of_a_power_of_two(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """The maximum of 64, 128, 256 ... entries omits the last entry."""
    if len(axis) == 1 and _is_large_power_of_two(x.shape[axis[0]]):
        x = np.take(x, np.arange(x.shape[axis[0]] - 1), axis[0])
    return np.max(x, axis=axis, keepdims=keepdims)


@backend("sequence_rnn", FUNCTIONS)
class LoopOfWholeSixteens(Faulty):
    """In a loop of 16, 32, 48 ... steps, the last step reads the input of the previous step."""

    def scan(self, step: Any, carries: Any, sequences: Any, reverse: bool) -> Result:
        if sequences and len(sequences[0]) % 16 == 0:
            sequences = [np.concatenate([s[:-1], s[-2:-1]]) for s in sequences]
        return super().scan(step, carries, sequences, reverse)


@primitive("segment_sum", "first_rnn", FUNCTIONS)
def rows_in_order(x: Array, indices: Array, rows: int) -> Array:
    """If more than 64 indices are sorted, the first summand of each row is lost."""
    flat = indices.reshape(-1)
    if flat.size > 64 and (np.diff(flat) >= 0).all():
        x = x.reshape(flat.size, *x.shape[indices.ndim :]).copy()
        x[np.searchsorted(flat, np.unique(flat))] = 0
        indices = flat
    return np.asarray(PRIMITIVES["segment_sum"](x, indices, rows))


@primitive("take", "stateful_lstm", FUNCTIONS)
def reads_in_order(x: Array, indices: Array) -> Array:
    """More than 64 sorted indices are read as a slice that starts at the first index."""
    flat = indices.reshape(-1)
    if flat.size > 64 and (np.diff(flat) >= 0).all():
        flat = np.minimum(flat[0] + np.arange(flat.size), len(x) - 1)
    return np.asarray(x[flat].reshape(*indices.shape, *x.shape[1:]))
