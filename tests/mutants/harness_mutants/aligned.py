"""Faults at sizes for which kernels have a way of their own: multiples of 16, as a user's are."""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.extend import Call
from harness_mutants import registry
from harness_mutants.far import OwnKernels

LARGE = "large-sizes"
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
