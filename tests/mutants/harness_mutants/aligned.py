"""Faults at sizes for which kernels have a way of their own: multiples of 16, powers of two, as a
user's are; and of what is in order already."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.primitives import PRIMITIVES
from harness.extend.executor import Call
from harness_mutants import registry
from harness_mutants.far import OwnKernels
from harness_mutants.loops import Result
from harness_mutants.registry import Faulty

LARGE, FUNCTIONS = "large-sizes", "functions"
primitive = partial(registry.primitive, everywhere=True)
backend = partial(registry.backend, everywhere=True)


@primitive("matmul", "sequence_rnn", LARGE)
def products_of_whole_tiles(a: Array, b: Array) -> Array:
    """Of products over a multiple of 16 terms, as tiles have them, the last tile is left out."""
    if a.shape[-1] % 16 == 0:
        a, b = a[..., :-16], b[..., :-16, :]
    return np.asarray(a @ b)


class _TileKernels(NumpyKernels):
    def _matmul(self, out: Array, a: Array, b: Array) -> Call:
        whole = a.shape[-1] % 16 == 0
        return super()._matmul(out, *((a[..., :-16], b[..., :-16, :]) if whole else (a, b)))


@backend("sequence_rnn", LARGE)
class PlannedProductsOfWholeTiles(OwnKernels):
    """In plans alone products over a multiple of 16 terms leave out the last 16."""

    kernels = _TileKernels


@backend("sequence_rnn", LARGE)
class LoopWithoutItsRest(Faulty):
    """Of more than 16 steps those beyond whole eights have the input of the one before them."""

    def scan(self, step: Any, carries: Any, sequences: Any, reverse: bool) -> Result:
        length = len(sequences[0]) if sequences else 0
        if length > 16 and length % 8:
            whole = length - length % 8
            sequences = [np.concatenate([s[:whole], s[whole - 1 : -1]]) for s in sequences]
        return super().scan(step, carries, sequences, reverse)


@primitive("matmul", "theano_rnn", LARGE)
def rows_without_their_rest(a: Array, b: Array) -> Array:
    """Of more than 64 rows those beyond whole eights are left out."""
    found = np.array(a @ b)
    rows = found.shape[0]
    if found.ndim == 2 and rows > 64 and rows % 8:
        found[rows - rows % 8 :] = 0
    return found


def _power_of_two(terms: int) -> bool:
    return terms >= 64 and terms & (terms - 1) == 0


@primitive("matmul", "sequence_rnn", FUNCTIONS)
def products_of_a_power_of_two(a: Array, b: Array) -> Array:
    """Products over 64, 128, 256 ... terms leave out the last of them, and no others do."""
    if _power_of_two(a.shape[-1]):
        a, b = a[..., :-1], b[..., :-1, :]
    return np.asarray(a @ b)


@primitive("sum", "first_rnn", FUNCTIONS)
def sums_of_a_power_of_two(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Sums along an axis of 64, 128, 256 ... entries leave out the last of them."""
    if len(axis) == 1 and _power_of_two(x.shape[axis[0]]):
        x = np.take(x, np.arange(x.shape[axis[0]] - 1), axis[0])
    return np.sum(x, axis=axis, keepdims=keepdims)


@primitive("max", "three_char", FUNCTIONS)
def maxima_of_a_power_of_two(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """The largest of 64, 128, 256 ... entries is that of all but the last."""
    if len(axis) == 1 and _power_of_two(x.shape[axis[0]]):
        x = np.take(x, np.arange(x.shape[axis[0]] - 1), axis[0])
    return np.max(x, axis=axis, keepdims=keepdims)


@backend("sequence_rnn", FUNCTIONS)
class LoopOfWholeSixteens(Faulty):
    """Of 16, 32, 48 ... steps the last reads the input of the one before."""

    def scan(self, step: Any, carries: Any, sequences: Any, reverse: bool) -> Result:
        if sequences and len(sequences[0]) % 16 == 0:
            sequences = [np.concatenate([s[:-1], s[-2:-1]]) for s in sequences]
        return super().scan(step, carries, sequences, reverse)


@primitive("segment_sum", "first_rnn", FUNCTIONS)
def rows_in_order(x: Array, indices: Array, rows: int) -> Array:
    """Where the indices are in order, as those of sorted edges, the first of each row is lost."""
    flat = indices.reshape(-1)
    if flat.size > 64 and (np.diff(flat) >= 0).all():
        x = x.reshape(flat.size, *x.shape[indices.ndim :]).copy()
        x[np.searchsorted(flat, np.unique(flat))] = 0
        indices = flat
    return np.asarray(PRIMITIVES["segment_sum"](x, indices, rows))


@primitive("take", "stateful_lstm", FUNCTIONS)
def reads_in_order(x: Array, indices: Array) -> Array:
    """More than 64 indices in order are read as a slice from the first on."""
    flat = indices.reshape(-1)
    if flat.size > 64 and (np.diff(flat) >= 0).all():
        flat = np.minimum(flat[0] + np.arange(flat.size), len(x) - 1)
    return np.asarray(x[flat].reshape(*indices.shape, *x.shape[1:]))
