"""Make the batches of a training, from rows of arrays or from windows of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array, IndexArray
from harness.command.ranges import EPOCHS
from harness.errors import UsageError
from harness.language import schema
from harness.language.model import Spec
from harness.language.noise import noise_of
from harness.program.ir import Port, Program
from harness.program.signature import noise_ports
from harness.runtime.precision import host_dtype
from harness.text.batches import Batches, Order, batches
from harness.text.vocabulary import column, hot_rows, row_count, windows

# The order and number of the rows of a training, from the spec or by default.

# The batch size if neither the spec nor the request gives one.
BATCH = 32


def training_of(spec: Spec) -> schema.Training:
    """Return the spec's ``training`` section, or a default.

    The default is one epoch with batches of :data:`BATCH` rows, at the learning rate of the
    optimizer. Rows are shuffled. If the model carries a state, rows keep their order and all
    batches are whole.

    Raises:
        UsageError: the spec has no optimizer.
    """
    if spec.update is None:
        raise UsageError(f"{spec.name} has no optimizer: it cannot be trained")
    if spec.model.training is not None:
        return spec.model.training
    rate = spec.update.attributes["learning_rate"]
    carries = bool(spec.programs["training"].state)
    return schema.Training(
        batch=BATCH,
        shuffle=not carries,
        whole_batches=carries,
        phases=[schema.Phase(epochs=1, learning_rate=rate)],
    )


def rates_of(spec: Spec, epochs: int | None) -> Sequence[float]:
    """Return the learning rate of each epoch, from the spec's phases.

    The list is cut to ``epochs`` entries, or extended with its last rate.

    Raises:
        UsageError: the spec has no optimizer, or too many epochs.
    """
    training = training_of(spec)
    EPOCHS.check(sum(phase.epochs for phase in training.phases), f"epochs of {spec.name}")
    rates = [phase.learning_rate for phase in training.phases for _ in range(phase.epochs)]
    if epochs is None:
        return rates
    return (rates + [rates[-1]] * epochs)[:epochs]


# The common part of all feeds: the order of the rows in an epoch, the held-out rows, and the noise.


@dataclass(frozen=True)
class Recipe:
    """The way to make batches from rows, as plain data that can be sent to a worker.

    A row of a text is a window of ``length`` characters. ``offsets`` gives for each array its
    distance in characters from the start of the window; None means an array of zeros. For data in
    arrays, ``length`` is 1. The last ``held_out`` rows are never used for training. ``examples``
    limits the number of all other rows.
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
    """Batches by row number, from ``total`` rows; ``time`` is the length of a sequence."""

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
        """Return the row numbers of each batch in an epoch. The order depends only on seed and
        epoch.

        Raises:
            UsageError: there are too few rows for a batch.
        """
        if number not in self._epochs:
            self._epochs.clear()  # free memory before drawing another order
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
        """The number of rows in each batch of :meth:`held_out`."""
        return min(self.recipe.batch, self.recipe.held_out)

    def held_out(self) -> Iterator[IndexArray]:
        """Yield the rows of each held-out batch in order. Only whole batches are used."""
        size = self.tested
        if not size:
            return
        for start in range(self.total - self.recipe.held_out, self.total - size + 1, size):
            yield np.arange(start, start + size)

    def batch(
        self, rows: Array, compact: Collection[str] = (), step: int | None = None
    ) -> dict[str, Array]:
        """Return the arrays of some rows, by ``input.NAME`` and ``target.NAME``.

        Rows of shape ``[..., batch]`` give arrays ``[..., batch, time]`` and so on. Arrays in
        ``compact`` are indices instead of one-hot. If ``step`` is given, the noise of this step is
        included; for rows ``[steps, batch]``, the noise of the next steps too.
        """
        taken = self.taken(rows)
        found = {n: a if n in compact else self.expand(n, a) for n, a in taken.items()}
        return found if step is None or not self._noise else found | self._drawn(rows, step)

    @abstractmethod
    def taken(self, rows: Array) -> dict[str, Array]:
        """Return the arrays of some rows; one-hot arrays are given as indices."""

    @abstractmethod
    def expand(self, name: str, taken: Array) -> Array:
        """Return indices as one-hot rows if array ``name`` is one-hot, else the array itself."""

    @property
    @abstractmethod
    def classes(self) -> dict[str, int]:
        """The number of classes of each one-hot array."""

    def _drawn(self, rows: Array, step: int) -> dict[str, Array]:
        """Return the noise of one step, or of all steps of ``rows`` ``[steps, batch]``."""
        sizes = {"batch": rows.shape[-1], "time": self._time}
        count = len(rows) if rows.ndim > 1 else 1
        steps = [
            noise_of(self._program, sizes, self.seed, number)
            for number in range(step, step + count)
        ]
        whole = {n: np.stack([one[n] for one in steps]).astype(self._dtype) for n in steps[0]}
        return {f"input.{n}": a if rows.ndim > 1 else a[0] for n, a in whole.items()}


def recipe_of_rows(
    spec: Spec,
    rows: int,
    batch: int | None,
    held_out: float,
    cut: tuple[int, int, int] = (1, 1, 0),
    offsets: Mapping[str, int | None] | None = None,
) -> Recipe:
    """Return a spec's recipe for ``rows`` rows, of which the share ``held_out`` is held out.

    ``cut`` gives, for a text, the length and stride of a window, and how many rows at the end are
    dropped.

    Raises:
        UsageError: the spec has no optimizer.
    """
    training = training_of(spec)
    return Recipe(
        *cut,
        offsets=offsets or {},
        batch=batch or training.batch,
        order="shuffled" if training.shuffle else "sequential",
        whole_only=training.whole_batches,
        examples=training.examples,
        held_out=int(rows * held_out),
    )


def recipe(spec: Spec, batch: int | None = None, held_out: float = 0.0, length: int = 0) -> Recipe:
    """Return the recipe of a spec for a text of ``length`` characters; ``held_out`` is a share.

    Raises:
        UsageError: the spec has no ``data`` section for a text or no optimizer, or the share is not
            at least 0 and below 1.
    """
    training_of(spec)
    data = spec.model.data
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
    offsets = {name: source.offset for name, source in data.arrays.items()}
    return recipe_of_rows(
        spec, rows, batch, held_out, (cut.length, cut.stride, cut.drop_last), offsets
    )


class Feed(RowFeed):
    """Batches of a text. ``indices`` holds the vocabulary index of every character.

    The shape of a program's input or target decides whether it gets one character per row, a
    window, or a one-hot window. Windows are cut when a batch is made, so the text is stored once.
    Raise :class:`UsageError` if the text is too short for a batch.
    """

    def __init__(
        self, program: Program, given: Recipe, indices: Array, dtype: str, seed: int
    ) -> None:
        cut = {"length": given.length, "stride": given.stride, "drop_last": given.drop_last}
        total = len(column(indices, **cut))
        super().__init__(program, given, total, given.length, dtype, seed)
        plain = [port for port in program.inputs if port not in self._noise]
        ports = {"input": plain, "target": program.targets}
        self._sources = {
            f"{group}.{port.name}": _Source(program, port, given, indices, cut, self._dtype)
            for group, found in ports.items()
            for port in found
        }
        # A source that allows the largest index of the text need not check its part of the text.
        largest = int(indices.max())
        for source in self._sources.values():
            source.check(largest)
        self.epoch(0)  # raise now, not in the worker, if there is no batch

    def taken(self, rows: Array) -> dict[str, Array]:
        return {name: source(rows) for name, source in self._sources.items()}

    def expand(self, name: str, taken: Array) -> Array:
        classes = self._sources[name].classes
        return hot_rows(taken, classes, self._dtype) if classes else taken

    @property
    def classes(self) -> dict[str, int]:
        return {n: s.classes for n, s in self._sources.items() if s.classes}


class _Source:
    """An input or target of a model, which converts row numbers to its part of a batch."""

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
        cutter = windows if wide else column
        self._rows = cutter(text, offset=self._offset, **cut)
        self._limit = self.classes or (type_.bound.resolve(program.sizes) if type_.bound else 0)

    def check(self, largest: int) -> None:
        """Raise :class:`UsageError` for an index without a class.

        ``largest`` is the largest index in the text.
        """
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
    """Return the sizes that must be raised because the text has more characters than the spec
    expects.

    Such a size bounds an index into the vocabulary, or is the last axis of a one-hot array.
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
