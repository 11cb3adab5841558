"""Kernels for numpy's executor that sum all rows with the same index. This is the gradient of a
gather, e.g. of an embedding."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite

import numpy as np

from harness.extend import Array

Call = Callable[[], object]

TOGETHER = 2**18  # entries; larger arrays are gathered one index at a time, to stay in the cache
LARGE = 2**16  # the most entries of the matrix of zeros and ones in _by_product


def segment_sum(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Return a function without arguments that computes the primitive ``segment_sum``: it adds all
    rows of ``x`` with the index i, and writes the sum to row i of ``out``.

    ``x`` is [n, units], ``indices`` [n] and ``out`` [rows, units]. The fastest of three methods is
    chosen by these sizes. ``scratch(shape, dtype, key)`` returns memory for intermediate values.
    """
    way = min(WAYS, key=lambda way: WAYS[way](len(out), *x.shape))
    return way(scratch, out, x, indices)


def _by_product(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Return a function like :func:`segment_sum`. It multiplies ``x`` by a matrix of zeros and
    ones: row i of the matrix has a one for each row of ``x`` with the index i."""
    by_present_index = _by_present_index(scratch, out, x, indices)
    ones = scratch((len(out), len(x)), x.dtype, 1)
    classes, product = np.arange(len(out))[:, None], _product(out)

    def run() -> None:
        np.equal(classes, indices, ones)
        product(ones, x, out)
        if not isfinite(np.vdot(out, out)):
            by_present_index()  # a product with 0 would spread NaN and infinity to all sums

    return run


def _by_runs(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Return a function like :func:`segment_sum`. It sorts the rows by index, and sums the rows of
    each index by multiplying them with a vector of ones."""
    narrow = np.int16 if len(out) < 2**15 else np.int64  # numpy sorts int16 by radix
    keys, values = scratch(indices.shape, narrow), scratch(x.shape, x.dtype)
    ones, rows, together = np.ones(len(x), x.dtype), list(out), x.size <= TOGETHER
    product = _product(out)

    def run() -> None:
        np.copyto(keys, indices, casting="unsafe")
        order = keys.argsort(kind="stable")
        if together:
            np.take(x, order, 0, values, "clip")
        start = 0
        stops = np.bincount(indices, minlength=len(rows)).cumsum().tolist()
        for row, stop in zip(rows, stops, strict=True):
            if together:
                part = values[start:stop]
            else:
                part = np.take(x, order[start:stop], 0, values[: stop - start], "clip")
            product(ones[start:stop], part, row)
            start = stop

    return run


def _product(out: Array) -> Callable[[Array, Array, Array], Array]:
    """Return the faster function for matrix products, ``np.dot``, if ``out`` is contiguous as it
    requires; otherwise ``np.matmul``."""
    return np.dot if out.flags.c_contiguous else np.matmul


def _by_present_index(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Return a function like :func:`segment_sum`. It sorts the rows by index, and computes sums
    only for the indices that occur."""
    values = scratch(x.shape, x.dtype)

    def run() -> None:
        order = indices.argsort(kind="stable")
        keys = indices[order]
        np.take(x, order, 0, values, "clip")
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        out.fill(0.0)
        out[keys[starts]] = np.add.reduceat(values, starts, axis=0)

    return run


# Estimated microseconds of each method for m sums of n rows with u units. The formulas are fitted
# to measurements on two cores, with m from 3 to 256, n from 12 to 8,192 and u from 1 to 512.
WAYS: dict[Callable[..., Call], Callable[[int, int, int], float]] = {
    _by_product: lambda m, n, u: (
        1.9 + (0.38 * m * n + 0.012 * m * n * u + 0.2 * m * u + 0.18 * n * u) / 1000
        if m * n <= LARGE
        else inf
    ),
    _by_runs: lambda m, n, u: 3.2 + 0.52 * m + (3.5 * n + 0.13 * n * u) / 1000,
    _by_present_index: lambda m, n, u: 7.8 + (7.4 * n + 0.95 * n * u + 0.34 * m * u) / 1000,
}
