"""The batches of a spec from the indices of a text: windows, one-hot rows, zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.language import schema
from harness.language.model import Spec
from harness.program.ir import Port, Program
from harness.program.signature import noise_ports
from harness.text.vocabulary import column_view, hot_rows, row_count, window_view
from harness.training.phases import training_of
from harness.training.rows import Recipe, RowFeed


def recipe(spec: Spec, batch: int | None = None, held_out: float = 0.0, length: int = 0) -> Recipe:
    """The recipe that a spec declares for a text of ``length`` characters.

    ``held_out`` is the share of its rows.

    Raises:
        UsageError: the spec does not say how a text is cut into its arrays, it has no optimizer, or
            the share leaves nothing to train on.
    """
    data, training = spec.model.data, training_of(spec)
    if not isinstance(data, schema.Data):
        names = ", ".join((*spec.model.inputs, *spec.model.targets))
        raise UsageError(
            f"{spec.name} has no 'data' section, which says how a text is cut into rows: add one "
            "(docs/spec-data.md), or give --data FILE, an npz file with an array for each of "
            f"{names}"
        )
    if not 0 <= held_out < 1:
        raise UsageError(f"the share that is held out is from 0 to below 1, found {held_out}")
    cut = data.windows
    rows = max(0, row_count(length, cut.length, cut.stride, cut.drop_last))
    return Recipe(
        length=cut.length,
        stride=cut.stride,
        drop_last=cut.drop_last,
        offsets={name: source.offset for name, source in data.arrays.items()},
        batch=batch or training.batch,
        order="shuffled" if training.shuffle else "sequential",
        whole_only=training.whole_batches,
        examples=training.examples,
        held_out=int(rows * held_out),
    )


class Feed(RowFeed):
    """Batches of a text. ``indices`` is the whole of it, in any dtype of whole numbers; a shape of
    a program's port decides whether an array is one character a row, a window, or its one-hot
    form. Windows are cut when a batch is: the text is held once, by whoever gives it.

    Raises :class:`UsageError` for a text too short for a batch.
    """

    def __init__(
        self, program: Program, given: Recipe, indices: Array, dtype: str, seed: int
    ) -> None:
        cut = {"length": given.length, "stride": given.stride, "drop_last": given.drop_last}
        total = len(column_view(indices, **cut))
        super().__init__(program, given, total, given.length, dtype, seed)
        plain = [port for port in program.inputs if port not in self._noise]
        ports = {"input": plain, "target": program.targets}
        self._sources = {
            f"{group}.{port.name}": _Source(program, port, given, indices, cut, self._dtype)
            for group, found in ports.items()
            for port in found
        }
        # What every source is below needs no look at its own part of the text.
        largest = int(indices.max())
        for source in self._sources.values():
            source.check(largest)
        self.epoch(0)  # raises now, and not in the worker, where there is no batch

    def taken(self, rows: Array) -> dict[str, Array]:
        return {name: source(rows) for name, source in self._sources.items()}

    def expand(self, name: str, taken: Array) -> Array:
        classes = self._sources[name].classes
        return hot_rows(taken, classes, self._dtype) if classes else taken

    @property
    def classes(self) -> dict[str, int]:
        return {n: s.classes for n, s in self._sources.items() if s.classes}


class _Source:
    """One array of a model: from row numbers to its part of a batch."""

    def __init__(
        self,
        program: Program,
        port: Port,
        given: Recipe,
        text: Array,
        cut: Mapping[str, int],
        dtype: np.dtype[Any],
    ) -> None:
        type_ = program.type_of(port)
        self._name, self._offset = port.name, given.offsets[port.name]
        self._dtype = dtype
        self.classes = 0
        if self._offset is None:
            self._tail = tuple(dim.resolve(program.sizes) for dim in type_.shape[1:])
            return
        if type_.bound is None:
            self.classes = type_.shape[-1].resolve(program.sizes)
        wide = len(type_.shape) - (self.classes > 0) > 1
        cutter = window_view if wide else column_view
        self._rows = cutter(text, offset=self._offset, **cut)
        self._limit = self.classes or (type_.bound.resolve(program.sizes) if type_.bound else 0)

    def check(self, largest: int) -> None:
        """:class:`UsageError` for an index that has no class; none in the text is larger."""
        if self._offset is None or largest < self._limit:
            return
        found = int(self._rows.max())
        if found >= self._limit:
            raise UsageError(
                f"{self._name} has {self._limit} classes, and the text has characters with indices "
                f"up to {found}"
            )

    def __call__(self, rows: Array) -> Array:
        if self._offset is None:
            return np.zeros((*rows.shape, *self._tail), self._dtype)
        return self._rows[rows].astype(np.int64)


def needed_sizes(spec: Spec, characters: int) -> dict[str, int]:
    """Sizes that count characters, where the text has more than the spec expects.

    They are those that bound an index which is cut from the text, or the last axis of its one-hot
    form.
    """
    data = spec.model.data
    assert isinstance(data, schema.Data)
    program = spec.programs["training"]
    found: dict[str, int] = {}
    for port in (*program.inputs, *program.targets):
        if port in noise_ports(program) or data.arrays[port.name].offset is None:
            continue
        type_ = program.type_of(port)
        dim = type_.bound if type_.bound is not None else type_.shape[-1]
        for name in dim.names:
            if program.sizes[name] < characters:
                found[name] = characters
    return found
