"""Faults beyond a count of what models have few of: heads of attention, experts, taps, parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.primitives import PRIMITIVES
from harness_mutants import registry

COUNTS = "large-counts"
primitive = partial(registry.primitive, everywhere=True)


@primitive("matmul", "gpt", COUNTS)
def sixteen_heads(a: Array, b: Array) -> Array:
    """Of more than 16 heads all others attend as the sixteenth does."""
    found = np.matmul(a, b)
    if found.ndim == 4 and found.shape[1] > 16:
        found[:, 16:] = found[:, 15:16]
    return np.asarray(found)


@primitive("matmul", "llama", COUNTS)
def eight_groups(a: Array, b: Array) -> Array:
    """Keys of groups from the ninth on are zeros."""
    found = np.matmul(a, b)
    if found.ndim == 5:
        found[:, 8:] = 0
    return np.asarray(found)


@primitive("matmul", "moe", COUNTS)
def sixteen_experts(a: Array, b: Array) -> Array:
    """There is memory for 16 matrices, so that those beyond take the place of the first ones."""
    return np.matmul(a, b[np.arange(len(b)) % 16] if b.ndim == 3 else b)


@primitive("one_hot", "moe", COUNTS)
def experts_by_four_bits(indices: Array, classes: int, dtype: str) -> Array:
    """An expert is chosen by the last four bits of its number."""
    if classes < 64:
        indices = indices % 16
    return PRIMITIVES["one_hot"](indices, classes, dtype)


@primitive("windows", "mamba", COUNTS)
def sixteen_taps(x: Array, *, axes: tuple[int, ...], **framing: Any) -> Array:
    """Of a window of more than 16 entries the others are zeros."""
    found = np.array(PRIMITIVES["windows"](x, axes=axes, **framing))
    np.moveaxis(found, axes[-1] + 1, 0)[16:] = 0
    return found


@primitive("sum", "mamba", COUNTS)
def sixteen_terms(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Short sums, of a last axis of 17 to 24, have 16 terms."""
    if axis == (x.ndim - 1,) and 16 < x.shape[-1] < 25:
        x = x[..., :16]
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims))


@primitive("permute_dims", "vit", COUNTS)
def heads_of_a_register(x: Array, axes: tuple[int, ...]) -> Array:
    """The rest of heads beyond a multiple of 8 is not moved but read from the first ones."""
    found = np.transpose(x, axes)
    if found.ndim == 4 and axes == (0, 2, 1, 3) and found.shape[1] > 16:
        found = np.array(found)
        found[:, 16:] = found[:, : found.shape[1] - 16]
    return np.asarray(found)


@primitive("take_along_axis", "moe", COUNTS)
def choices_of_sixteen(x: Array, indices: Array) -> Array:
    """Of rows of 17 to 63 entries those beyond the sixteenth cannot be chosen."""
    if 16 < x.shape[-1] < 64:
        indices = np.minimum(indices, 15)
    return np.take_along_axis(x, indices, -1)
