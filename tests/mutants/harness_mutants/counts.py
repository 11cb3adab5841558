"""Faults for more than 8 or 16 attention heads, groups, experts, window entries or summands."""

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
    """Attention heads after the 16th get the matrix products of the 16th head."""
    found = np.matmul(a, b)
    if found.ndim == 4 and found.shape[1] > 16:
        found[:, 16:] = found[:, 15:16]
    return np.asarray(found)


@primitive("matmul", "llama", COUNTS)
def eight_groups(a: Array, b: Array) -> Array:
    """In grouped attention, matrix products of the ninth and later groups are zero."""
    found = np.matmul(a, b)
    if found.ndim == 5:
        found[:, 8:] = 0
    return np.asarray(found)


@primitive("matmul", "moe", COUNTS)
def sixteen_experts(a: Array, b: Array) -> Array:
    """Only 16 expert matrices fit into memory, so later matrices overwrite the first."""
    return np.matmul(a, b[np.arange(len(b)) % 16] if b.ndim == 3 else b)


@primitive("one_hot", "moe", COUNTS)
def experts_by_four_bits(indices: Array, classes: int, dtype: str) -> Array:
    """With fewer than 64 experts, only the last four bits of an expert's number are used."""
    if classes < 64:
        indices = indices % 16
    return PRIMITIVES["one_hot"](indices, classes, dtype)


@primitive("windows", "mamba", COUNTS)
def sixteen_taps(x: Array, *, axes: tuple[int, ...], **framing: Any) -> Array:
    """In windows of more than 16 entries, all entries after the 16th are zero."""
    found = np.array(PRIMITIVES["windows"](x, axes=axes, **framing))
    np.moveaxis(found, axes[-1] + 1, 0)[16:] = 0
    return found


@primitive("sum", "mamba", COUNTS)
def sixteen_terms(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """If the last axis has 17 to 24 entries, its sum omits all entries after the 16th."""
    if axis == (x.ndim - 1,) and 16 < x.shape[-1] < 25:
        x = x[..., :16]
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims))


@primitive("permute_dims", "vit", COUNTS)
def heads_of_a_register(x: Array, axes: tuple[int, ...]) -> Array:
    """Attention heads after the 16th are copies of the first heads."""
    found = np.transpose(x, axes)
    if found.ndim == 4 and axes == (0, 2, 1, 3) and found.shape[1] > 16:
        found = np.array(found)
        found[:, 16:] = found[:, : found.shape[1] - 16]
    return np.asarray(found)


@primitive("take_along_axis", "moe", COUNTS)
def choices_of_sixteen(x: Array, indices: Array) -> Array:
    """In rows of 17 to 63 entries, only the first 16 entries can be selected."""
    if 16 < x.shape[-1] < 64:
        indices = np.minimum(indices, 15)
    return np.take_along_axis(x, indices, -1)
