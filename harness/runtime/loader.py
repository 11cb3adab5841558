"""Batches of a source as tensors, at little cost for each. Runs inside the worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.runtime.executor import KEPT
from harness.runtime.native import Tensors
from harness.runtime.session import Session

# Bytes of batches that a backend gets at once.
GIVEN = 1 << 21
# Steps that go into one call, where a backend has a way to make several: more of them if their
# batches have few bytes, as then it is calls that cost.
MANY, MANY_SMALL, SMALL = 8, 64, 1 << 20

Rows = Array


class BatchSource(Protocol):
    """Batches by the numbers of their rows."""

    @property
    def classes(self) -> Mapping[str, int]:
        """How many classes each array of one-hot rows has that can be had as indices."""

    def batch(self, rows: Rows, compact: Collection[str] = (), step: int | None = None) -> Arrays:
        """By ``input.NAME`` and ``target.NAME``: rows of any shape ``[..., batch]`` give arrays
        ``[..., batch, ...]``. Those in ``compact`` are indices in place of their one-hot form.
        With the number of the first ``step``, from 0, noise is among them."""

    def expand(self, name: str, taken: Array) -> Array:
        """The one-hot form of indices, if the array is to have it."""


class Loader:
    """The batches of a source, as a step takes them; ``rows`` ``[batch]`` are those of one of them.

    ``orders`` are the axes of those tensors that the step wants in another order; see
    :class:`harness.program.plan.Plan`. ``many`` steps go into one call, if that is given. Where the
    backend cannot write into tensors, indices are given in place of one-hot rows, and
    :meth:`expand` is part of the step.
    """

    def __init__(
        self,
        session: Session,
        source: BatchSource,
        rows: Rows,
        orders: Mapping[str, tuple[int, ...]] | None = None,
        many: int | None = None,
    ) -> None:
        self._session, self._backend, self._source = session, session.backend, source
        self._orders = orders or {}
        kept = {n: axes[-1] == len(axes) - 1 for n, axes in self._orders.items()}
        # Those whose classes stay the last axis.
        self._early = {n: count for n, count in source.classes.items() if kept.get(n, True)}
        self._classes = {} if self._backend.rewrites else self._early
        self._given: Tensors = {}
        self._parts: list[Tensors] = []
        self._bytes = sum(array.nbytes for array in self._arrays(rows).values())
        self.many = many or (MANY_SMALL if MANY_SMALL * self._bytes <= SMALL else MANY)

    def batch(self, rows: Rows, step: int = 0) -> Tensors:
        """The tensors of some rows ``[batch]`` at a step, or of batches ``[steps, batch]`` from
        that on."""
        tensor = self._backend.tensor
        return {name: tensor(array) for name, array in self._arrays(rows, step).items()}

    def expand(self, batch: Tensors) -> Tensors:
        """A batch of :meth:`batch` or :meth:`each` with all that is to be one-hot in that form."""
        if not self._classes:
            return batch
        one_hot, dtype = self._backend.primitives["one_hot"], self._session.dtype
        made = {n: one_hot(batch[n], classes, dtype) for n, classes in self._classes.items()}
        return {**batch, **made}

    def batches(self, rows: Rows, stacked: bool, step: int = 0) -> Iterator[tuple[Tensors, bool]]:
        """The batches of rows ``[steps, batch]`` from a step on, and whether each is a stack of
        :attr:`many`."""
        done = 0
        while stacked and len(rows) - done >= self.many:
            yield self.batch(rows[done : done + self.many], step + done), True
            done += self.many
        if done < len(rows):
            for batch in self.each(rows[done:], step + done):
                yield batch, False

    def each(self, rows: Rows, step: int = 0) -> Iterator[Tensors]:
        """One batch after the other of rows ``[steps, batch]``; each must be used before the next.

        A backend that can write into tensors gets many batches at once, always in the same memory:
        an executor then knows its inputs, and nothing is left to do for the single step.
        """
        if not self._backend.rewrites:
            yield from (self.batch(one, step + number) for number, one in enumerate(rows))
            return
        if not self._parts:
            self._allocate(rows[:1])
        count = len(self._parts)
        ahead = max(1, GIVEN // (self._bytes * count)) * count
        for first in range(0, len(rows), ahead):
            arrays = self._arrays(rows[first : first + ahead], step + first)
            for start in range(0, min(ahead, len(rows) - first), count):
                yield from self._write({n: a[start : start + count] for n, a in arrays.items()})

    def _allocate(self, rows: Rows) -> None:
        arrays = self._arrays(rows)
        count = max(1, min(KEPT, GIVEN // self._bytes))
        backend = self._backend
        self._given = {n: backend.tensor(np.repeat(a, count, axis=0)) for n, a in arrays.items()}
        parts = {n: backend.unstack(tensor) for n, tensor in self._given.items()}
        self._parts = [{n: p[step] for n, p in parts.items()} for step in range(count)]

    def _write(self, arrays: Arrays) -> Sequence[Tensors]:
        """The parts that hold these batches now: all, or as many as there are batches."""
        fill = self._backend.fill
        parts = self._parts[: len(next(iter(arrays.values())))]
        for name, array in arrays.items():
            if len(parts) == len(self._parts):
                fill(self._given[name], array)
            else:
                for part, single in zip(parts, array, strict=True):
                    # Of no axes numpy gives a number, and no array.
                    fill(part[name], np.asarray(single))
        return parts

    def _arrays(self, rows: Rows, step: int = 0) -> ArrayDict:
        """What is to be one-hot is put in order before, while it is small."""
        arrays, lead = {}, rows.ndim - 1
        for name, array in self._source.batch(rows, self._early, step).items():
            axes = self._orders.get(name)
            if axes is not None:
                kept = axes[:-1] if name in self._early else axes
                array = array.transpose((*range(lead), *(lead + axis for axis in kept)))
            late = name in self._early and name not in self._classes
            arrays[name] = self._source.expand(name, array) if late else array
        return arrays
