"""Sums of the rows that have the same index, for numpy's executor: the gradient of a gather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.extend import Array

Call = Callable[[], object]

FEW = 2  # times as many rows as sums: up to there one product beats a call for every sum
LARGE = 2**16  # entries of that product's zeros and ones: beyond, sorting is faster and needs none
TOGETHER = 2**18  # entries: more are gathered run by run, as a sorted copy would leave the cache


def segment_sum(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """A call that fills ``out`` [rows, units] from ``x`` [n, units] and ``indices`` [n].

    ``scratch(shape, dtype, key)`` gives memory that a call may use while it runs.
    """
    if len(x) > FEW * len(out):
        return _by_runs(scratch, out, x, indices)
    by_found = _by_found(scratch, out, x, indices)
    if len(out) * len(x) > LARGE:
        return by_found
    ones = scratch((len(out), len(x)), x.dtype, 1)
    classes, finite = np.arange(len(out))[:, None], scratch(out.shape, np.bool_)

    def by_product() -> None:
        np.equal(classes, indices, ones)
        np.matmul(ones, x, out)
        if not np.isfinite(out, finite).all():
            by_found()  # a product with 0 would spread what is not finite to all sums

    return by_product


def _by_runs(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Sorts the rows and adds up each run of equal indices as a product with ones."""
    narrow = np.int16 if len(out) < 2**15 else np.int64  # which numpy sorts by radix
    keys, values = scratch(indices.shape, narrow), scratch(x.shape, x.dtype)
    ones, rows, together = np.ones(len(x), x.dtype), list(out), x.size <= TOGETHER

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
            np.dot(ones[start:stop], part, row)
            start = stop

    return run


def _by_found(scratch: Callable[..., Array], out: Array, x: Array, indices: Array) -> Call:
    """Sorts the rows and adds up the runs; of many sums, most have no row and stay 0."""
    values = scratch(x.shape, x.dtype)

    def run() -> None:
        order = indices.argsort(kind="stable")
        keys = indices[order]
        np.take(x, order, 0, values, "clip")
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        out.fill(0.0)
        out[keys[starts]] = np.add.reduceat(values, starts, axis=0)

    return run
