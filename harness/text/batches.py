"""The order in which an epoch uses the rows of its data: the row numbers of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, get_args, overload

import numpy as np

from harness.arrays import Array, IndexArray
from harness.errors import UsageError, did_you_mean
from harness.language.initializers import generator

Order = Literal["shuffled", "sequential"]


class Batches(Sequence[IndexArray]):
    """The row numbers of each batch of one epoch: a sequence of arrays, as :func:`batches`
    describes them.

    The rows are shuffled when the first batch is read.
    """

    def __init__(
        self, rows: int, size: int, order: Order, whole_only: bool, seed: int, epoch: int
    ) -> None:
        self._rows, self._size, self._order = rows, size, order
        self._stream = (seed, f"shuffle/{epoch}")
        self.rows = rows // size * size if whole_only else rows

    def __len__(self) -> int:
        return -(-self.rows // self._size)

    @overload
    def __getitem__(self, index: int) -> IndexArray: ...
    @overload
    def __getitem__(self, index: slice) -> list[IndexArray]: ...
    def __getitem__(self, index: int | slice) -> IndexArray | list[IndexArray]:
        if not isinstance(index, slice):
            place = range(len(self))[index]
            return self[place : place + 1][0]
        first, last, step = index.indices(len(self))
        if step != 1:
            raise IndexError("a slice of the batches of an epoch must have step 1")
        stop = min(last * self._size, self.rows)
        numbers = self._row_numbers(first * self._size, stop)
        return [numbers[i : i + self._size] for i in range(0, len(numbers), self._size)]

    def rows_of(self, first: int, last: int) -> int:
        """Return the total number of rows in the batches from ``first`` to ``last - 1``."""
        return min(last * self._size, self.rows) - min(first * self._size, self.rows)

    def _row_numbers(self, start: int, stop: int) -> IndexArray:
        if self._order == "sequential":
            return np.arange(start, stop)
        return self._shuffled[start:stop].astype(np.int64)

    @cached_property
    def _shuffled(self) -> Array:
        # This gives the same order as `permutation(rows)`, which needs twice the memory.
        numbers = np.arange(self._rows, dtype=np.int32 if self._rows < 2**31 else np.int64)
        generator(*self._stream).shuffle(numbers)
        return numbers


def batches(rows: int, size: int, order: Order, whole_only: bool, seed: int, epoch: int) -> Batches:
    """Return the row numbers of each batch of one epoch, each an array of shape ``[size]``.
    ``rows`` is the number of all rows.

    With ``whole_only``, rows that do not fill a batch are dropped; otherwise the last batch is
    smaller. A shuffled order depends only on ``seed`` and ``epoch``. In a ``"sequential"`` order
    with ``whole_only``, row j of a batch continues row j of the previous batch. A model needs this
    if it carries its state from batch to batch.

    Raises:
        UsageError: there are too few rows for a batch, or ``order`` or ``size`` is invalid.
    """
    if order not in get_args(Order):
        raise UsageError(
            f"unknown order {order!r}; allowed are {', '.join(get_args(Order))}"
            f"{did_you_mean(order, get_args(Order))}"
        )
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, found {size}")
    if rows < (size if whole_only else 1):
        smallest_batch = f"a whole batch of {size}" if whole_only else "a batch"
        raise UsageError(f"{rows} rows are too few for {smallest_batch}")
    return Batches(rows, size, order, whole_only, seed, epoch)
