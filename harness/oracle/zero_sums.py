"""Sums that are zero by algebra: what a gradient loses if a framework leaves them out.

A fused normalization does not compute ``sum(x - mean(x))`` in its backward pass, because that sum
is zero. The derived gradient computes it. In float32 the sum holds the rounding error of the mean,
which cancels the same error in other terms. Both ways are right. Neither other orders of summation
nor random rounding show how far they are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.kinks import Watching
from harness.oracle.oracle import TABLE, Oracle

# A sum in float64 this small beside the sum of its magnitudes holds nothing but rounding errors,
# even if its terms are differences of numbers a thousand times their size.
VANISHING = 2.0**-32

_sum = TABLE["sum"]


class ZeroSumWatching(Watching):
    """Watch comparisons, and record which entries of each sum are zero by algebra.

    ``zeros`` has one boolean array per sum in the order of execution, or None for a sum without
    such entries.
    """

    def __init__(self) -> None:
        super().__init__()
        self._table = {**self._table, "sum": self._watched_sum}

    def forget(self) -> None:
        """Begin anew."""
        super().forget()
        self.zeros: list[Array | None] = []

    def _watched_sum(self, x: Array, **attributes: Any) -> Array:
        total = np.asarray(_sum(x, **attributes))
        zero = None
        if total.dtype.kind == "f" and total.size < x.size:
            magnitude = np.asarray(_sum(np.abs(x), **attributes))
            zero = (magnitude > 0) & (np.abs(total) <= VANISHING * magnitude)
        self.zeros.append(zero if zero is not None and zero.any() else None)
        return total


class WithoutZeroSums(Oracle):
    """The oracle with exact zeros for the entries that :class:`ZeroSumWatching` recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(())
        self._table = {**self._table, "sum": self._exact_sum}

    def begin(self, zeros: Sequence[Array | None]) -> None:
        """Run the same program from its start, with the recorded zeros in the order of its sums."""
        self._zeros = iter(zeros)

    def _exact_sum(self, x: Array, **attributes: Any) -> Array:
        total, zero = np.asarray(_sum(x, **attributes)), next(self._zeros)
        return total if zero is None else np.where(zero, total.dtype.type(0), total)
