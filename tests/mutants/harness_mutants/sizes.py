"""Faults beyond a certain batch size, sequence length, array size, or number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.primitives import PRIMITIVES
from harness.runtime.interpreter import Step
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.gradients import AlteredGradients
from harness_mutants.loops import Result
from harness_mutants.numbers import rounded
from harness_mutants.registry import BOTH, Faulty

Tensors = dict[str, Any]
LARGE = "large-sizes"
primitive = partial(registry.primitive, everywhere=True)
session = partial(registry.session, everywhere=True)
backend = partial(registry.backend, everywhere=True)


@primitive("max", "sequence_onehot", "functions", BOTH)
def max_of_64(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A maximum includes the first 64 entries only."""
    return np.max(x[..., :64], axis=axis, keepdims=keepdims)


@primitive("take", "sequence_rnn", LARGE)
def take_by_bytes(x: Array, indices: Array) -> Array:
    """Indices of rows are truncated to a byte when rows are read."""
    return np.asarray(x[indices.astype(np.uint8)])


@primitive("take", "first_rnn", LARGE, BOTH)
def take_by_signed_bytes(x: Array, indices: Array) -> Array:
    """Indices of rows are signed bytes, so indices from 128 on count from the end."""
    return np.asarray(x[indices.astype(np.int8)])


@primitive("one_hot", "simple_rnn", LARGE)
def one_hot_of_bytes(indices: Array, classes: int, dtype: str) -> Array:
    """``one_hot`` truncates class numbers to a byte."""
    found = indices.astype(np.uint8)[..., None] == np.arange(classes)
    return np.asarray(found.astype(dtype))


@primitive("take_along_axis", "three_char", LARGE)
def target_of_bytes(x: Array, indices: Array) -> Array:
    """The class number of a target is truncated to a byte."""
    return np.take_along_axis(x, indices.astype(np.uint8).astype(np.int64), -1)


@primitive("segment_sum", "simple_rnn", LARGE)
def rows_of_64_positions(x: Array, indices: Array, rows: int) -> Array:
    """Gradients of embedding rows include the first 64 positions only."""
    flat = x.reshape(indices.size, *x.shape[indices.ndim :])
    return np.asarray(PRIMITIVES["segment_sum"](flat[:64], indices.reshape(-1)[:64], rows))


@primitive("segment_sum", "sequence_rnn", LARGE)
def rows_of_64_repeats(x: Array, indices: Array, rows: int) -> Array:
    """Gradients of embedding rows include the first 64 occurrences of an index only."""
    flat = indices.reshape(-1)
    order = np.array([np.sum(flat[:i] == index) for i, index in enumerate(flat)])
    kept = (order < 64).reshape(*indices.shape, *[1] * (x.ndim - indices.ndim))
    return np.asarray(PRIMITIVES["segment_sum"](np.where(kept, x, 0), indices, rows))


@primitive("segment_sum", "sequence_unrolled", LARGE)
def rows_by_bytes(x: Array, indices: Array, rows: int) -> Array:
    """Indices of rows are truncated to a byte when gradients are summed."""
    bytes_ = indices.astype(np.uint8).astype(np.int64)
    return np.asarray(PRIMITIVES["segment_sum"](x, bytes_, rows))


@primitive("matmul", "sequence_onehot", LARGE)
def matmul_of_64_rows(a: Array, b: Array) -> Array:
    """Rows after the 64th of a matrix product are zero."""
    found = np.array(np.matmul(a, b))
    found[64:] = 0
    return found


@primitive("matmul", "theano_gru", LARGE, BOTH)
def matmul_of_64_columns(a: Array, b: Array) -> Array:
    """A matrix product sums the first 64 terms only."""
    return np.matmul(a[..., :64], b[..., :64, :])


@primitive("matmul", "simple_rnn", LARGE)
def square_operand_transposed(a: Array, b: Array) -> Array:
    """A square left operand of a matrix product is transposed."""
    square = a.ndim == 2 and a.shape[0] == a.shape[1]
    return np.matmul(a.T if square else a, b)


@primitive("matmul", "theano_rnn", LARGE)
def matmul_narrow_when_large(a: Array, b: Array) -> Array:
    """Matrix products with at least 64 columns are computed in bfloat16."""
    large = b.shape[-1] >= 64
    return np.matmul(rounded(a, 8), rounded(b, 8)) if large else np.matmul(a, b)


@primitive("tensordot", "theano_gru_combined", LARGE)
def weights_of_32_examples(a: Array, b: Array, axes: Any) -> Array:
    """The gradient of a weight includes the first 32 examples only."""
    cut: list[Array] = []
    for array, contracted in zip((a, b), axes, strict=True):
        index = [slice(None)] * array.ndim
        if len(contracted) == 2:
            index[contracted[0]] = index[contracted[1]] = slice(32)
        cut.append(array[tuple(index)])
    return np.tensordot(*cut, axes)


@primitive("sum", "keras_gru", "functions")
def sum_of_256(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A sum along the last axis includes the first 256 entries only."""
    last = x.ndim - 1 in axis and x.ndim > 0
    return np.sum(x[..., :256] if last else x, axis=axis, keepdims=keepdims)


@primitive("sum", "first_rnn", LARGE)
def sum_of_64_examples(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A sum along the first axis includes the first 64 entries only."""
    return np.sum(x[:64] if 0 in axis else x, axis=axis, keepdims=keepdims)


@primitive("concat", "sequence_rnn", LARGE)
def concat_of_32(arrays: Sequence[Array], axis: int) -> Array:
    """``concat`` of more than 32 arrays repeats the 32nd array."""
    kept = [array if number < 32 else arrays[31] for number, array in enumerate(arrays)]
    return np.concatenate(kept, axis)


@primitive("slice", "stateful_lstm", LARGE)
def slice_of_32(x: Array, axis: int, start: int, stop: int) -> Array:
    """A slice of one entry after the 32nd returns the 32nd entry."""
    start, stop = (31, 32) if start > 31 and stop == start + 1 else (start, stop)
    return np.asarray(x[(slice(None),) * axis + (slice(start, stop),)])


@primitive("permute_dims", "keras_gru", LARGE)
def permute_of_small_arrays(x: Array, axes: tuple[int, ...]) -> Array:
    """Arrays of more than 65,536 entries are reshaped instead of transposed."""
    moved = np.transpose(x, axes)
    return x.reshape(moved.shape) if x.size > 1 << 16 else moved


@primitive("add", "pure_python_rnn", LARGE)
def add_of_64_rows(a: Array, b: Array) -> Array:
    """``add`` changes the first 64 rows of a matrix only."""
    found = np.array(np.add(a, b))
    if found.ndim == 2 and np.shape(a) == found.shape and len(found) > 64:
        found[64:] = a[64:]
    return found


@primitive("where", "theano_rnn", LARGE)
def where_of_64_rows(condition: Array, a: Array, b: Array) -> Array:
    """After 64 rows, ``where`` treats the condition as false."""
    found = np.array(np.where(condition, a, b))
    if found.ndim == 2 and len(found) > 64:
        found[64:] = np.broadcast_to(b, found.shape)[64:]
    return found


@primitive("less_equal", "sequence_unrolled", LARGE)
def comparison_of_4096(a: Array, b: Array) -> Array:
    """After 4,096 entries, ``less_equal`` returns false."""
    found = np.array(np.less_equal(a, b))
    found.reshape(-1)[4096:] = False
    return found


@primitive("exp", "pure_python_rnn", LARGE)
def exp_of_a_block(x: Array) -> Array:
    """After 16,384 entries, exponentials are off by 0.1%."""
    found = np.array(np.exp(x))
    found.reshape(-1)[1 << 14 :] *= x.dtype.type(1.001)
    return found


@primitive("multiply", "stateful_lstm", LARGE)
def multiply_in_blocks(a: Array, b: Array) -> Array:
    """The last row of elementwise products of more than 64 rows is zero."""
    found = np.array(np.multiply(a, b))
    if found.ndim == 2 and len(found) > 64:
        found[-1] = 0
    return found


@session("sequence_rnn", LARGE, BOTH)
class GradientAbove32(AlteredGradients):
    """Gradients of batches above 32 are divided by 32 instead of the batch size."""

    def alter(self, gradients: Tensors, variables: Tensors, constants: Tensors) -> Tensors:
        count = (
            max(len(t) for n, t in constants.items() if n.startswith("input."))
            if any(n.startswith("input.") for n in constants)
            else 0
        )
        return {n: g * (count / 32) for n, g in gradients.items()} if count > 32 else {}


@session("keras_gru", LARGE)
class GradientOfWideLayers(AlteredGradients):
    """Gradients of matrices with more than 64 rows are off by 0.01%."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        wide = {n: g for n, g in gradients.items() if g.ndim == 2 and len(g) > 64}
        return {n: g * g.dtype.type(1.0001) for n, g in wide.items()}


@session("first_rnn", LARGE)
class GradientOfSomeRows(AlteredGradients):
    """The gradient of an embedding table is zero after row 256."""

    def alter(self, gradients: Tensors, *_: Any) -> Tensors:
        found = {n: np.array(g) for n, g in gradients.items() if n.endswith(".table")}
        for gradient in found.values():
            gradient[256:] = 0
        return found


@session("stateful_lstm", LARGE)
class StateOf64Examples(Session):
    """The initial state of examples after the 64th is zero."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        cut = {n: np.array(a) for n, a in state.items()}
        for array in cut.values():
            array[64:] = 0
        return super().arguments(phase, inputs, cut, targets)


@session("theano_gru", LARGE)
class LoadsWideMatricesRounded(Session):
    """Matrices of more than 4,096 entries are rounded to bfloat16 when loaded."""

    def load(self, parameters: Any, statistics: Any) -> None:
        kept = {n: rounded(a, 8) if a.size > 4096 else a for n, a in parameters.items()}
        super().load({n: a.astype(parameters[n].dtype) for n, a in kept.items()}, statistics)


@backend("sequence_onehot", LARGE, BOTH)
class BackwardEndsAfter16(Faulty):
    """Back-propagation is truncated after 16 steps."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        last, stacked = super().scan(step, carries, sequences, reverse)
        if reverse:
            stacked = [np.concatenate([0 * s[:-16], s[-16:]]) for s in stacked]
        return last, stacked


@backend("theano_gru_combined", LARGE)
class LoopForgetsAfter32(Faulty):
    """A loop restarts from its initial state at step 33."""

    def scan(self, step: Step, carries: Any, sequences: Any, reverse: bool) -> Result:
        if reverse or len(sequences[0]) <= 32:
            return super().scan(step, carries, sequences, reverse)
        first = super().scan(step, carries, [s[:32] for s in sequences], False)
        second = super().scan(step, carries, [s[32:] for s in sequences], False)
        joined = [np.concatenate(pair) for pair in zip(first[1], second[1], strict=True)]
        return second[0], joined
