"""What all feeds have: the rows of an epoch in their order, those that are held out, and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.arrays import Array, IndexArray
from harness.language.noise import noise_of
from harness.program.ir import Program
from harness.program.signature import noise_ports
from harness.runtime.precision import host_dtype
from harness.text.batches import Batches, Order, batches


@dataclass(frozen=True)
class Recipe:
    """How batches are made of rows: plain data, for a worker. What a row is, the data say.

    Of a text, rows are windows of ``length`` characters; ``offsets`` are by array name, in
    characters from the start of a window, and an array of zeros has none. Of arrays, ``length`` is
    1. Of all rows the last ``held_out`` are never trained on; ``examples`` bounds the others.
    """

    length: int
    stride: int
    drop_last: int
    offsets: Mapping[str, int | None]
    batch: int
    order: Order
    whole_only: bool
    examples: int | None = None
    held_out: int = 0


class RowFeed(ABC):
    """Batches by row numbers, of ``total`` rows; ``time`` is the length of their sequences."""

    def __init__(
        self, program: Program, given: Recipe, total: int, time: int, dtype: str, seed: int
    ) -> None:
        self.recipe, self.seed, self.total = given, seed, total
        self.rows = total - given.held_out
        if given.examples is not None:
            self.rows = min(self.rows, given.examples)
        self._program, self._noise = program, noise_ports(program)
        self._dtype, self._time = np.dtype(host_dtype(dtype)), time
        self._epochs: dict[int, Batches] = {}

    def epoch(self, number: int) -> Batches:
        """The row numbers of each batch of an epoch; the order depends on the seed only.

        Raises:
            UsageError: there are too few rows for a batch.
        """
        if number not in self._epochs:
            self._epochs.clear()  # before another order is drawn, not after
            self._epochs[number] = batches(
                self.rows,
                self.recipe.batch,
                self.recipe.order,
                self.recipe.whole_only,
                self.seed,
                number,
            )
        return self._epochs[number]

    @property
    def tested(self) -> int:
        """How many rows a batch of :meth:`held_out` has."""
        return min(self.recipe.batch, self.recipe.held_out)

    def held_out(self) -> Iterator[IndexArray]:
        """The rows of each batch that is never trained on, in order; whole batches only."""
        size = self.tested
        if not size:
            return
        for start in range(self.total - self.recipe.held_out, self.total - size + 1, size):
            yield np.arange(start, start + size)

    def batch(
        self, rows: Array, compact: Collection[str] = (), step: int | None = None
    ) -> dict[str, Array]:
        """The arrays of some rows by ``input.NAME`` and ``target.NAME``; rows of any shape
        ``[..., batch]`` give arrays ``[..., batch, time]`` and so on.

        Those in ``compact`` are indices in place of their one-hot form. With the number of a
        ``step`` the noise of that, and of those after it for rows ``[steps, batch]``.
        """
        taken = self.taken(rows)
        found = {n: a if n in compact else self.expand(n, a) for n, a in taken.items()}
        return found if step is None or not self._noise else found | self._drawn(rows, step)

    @abstractmethod
    def taken(self, rows: Array) -> dict[str, Array]:
        """The arrays of some rows; what is to be one-hot as indices."""

    @abstractmethod
    def expand(self, name: str, taken: Array) -> Array:
        """The one-hot form of indices, if the array is to have it."""

    @property
    @abstractmethod
    def classes(self) -> dict[str, int]:
        """How many classes each array of one-hot rows has."""

    def _drawn(self, rows: Array, step: int) -> dict[str, Array]:
        """The noise of as many steps as there are rows of row numbers."""
        sizes = {"batch": rows.shape[-1], "time": self._time}
        count = len(rows) if rows.ndim > 1 else 1
        steps = [
            noise_of(self._program, sizes, self.seed, number)
            for number in range(step, step + count)
        ]
        whole = {n: np.stack([one[n] for one in steps]).astype(self._dtype) for n in steps[0]}
        return {f"input.{n}": a if rows.ndim > 1 else a[0] for n, a in whole.items()}
