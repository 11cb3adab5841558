"""Faults of sliding windows: their start, their padding, and their sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.primitives import PRIMITIVES
from harness_mutants.registry import BOTH, primitive

_windows, _overlap_add = PRIMITIVES["windows"], PRIMITIVES["overlap_add"]


@primitive("windows", "resnet", "outputs", BOTH)
def windows_padded_behind(x: Array, **framing: Any) -> Array:
    """All padding is after the last entry, as if a stride left an odd number of zeros."""
    both = zip(framing["padding"], framing["after"], strict=True)
    none = tuple(0 for _ in framing["padding"])
    framing |= {"after": tuple(a + b for a, b in both), "padding": none}
    return np.asarray(_windows(x, **framing))


@primitive("windows", "lenet", "outputs", BOTH)
def windows_turned_around(x: Array, **framing: Any) -> Array:
    """The kernel is flipped, as in the mathematical definition of a convolution."""
    last = framing["axes"][-1] + 1
    return np.flip(_windows(x, **framing), tuple(range(last, last + len(framing["axes"]))))


@primitive("overlap_add", "lenet", "gradients", BOTH)
def overlaps_counted_once(x: Array, **framing: Any) -> Array:
    """Gradients of overlapping windows are averaged, not added."""
    found = _overlap_add(x, **framing)
    return np.asarray(found / np.maximum(_overlap_add(np.ones_like(x), **framing), 1))


@primitive("overlap_add", "resnet", "gradients", BOTH)
def borders_without_gradient(x: Array, **framing: Any) -> Array:
    """The first row of an image has no gradient."""
    found = np.array(_overlap_add(x, **framing))
    found[:, 0] = 0
    return found
