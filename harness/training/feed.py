"""Batches of a training. A row of a batch is an example: a row of the arrays, or a window (a fixed
number of characters) of a text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array, IndexArray
from harness.command.ranges import EPOCHS, HELD_OUT
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
    """Return the spec's ``training`` section, or a default if the spec has none.

    The default is one epoch with batches of :data:`BATCH` rows, at the learning rate of the
    optimizer. Rows are shuffled. But if the model has a state, rows keep their order, and an
    incomplete last batch is dropped.

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
    """Return the learning rate of each epoch, from the list ``phases`` in the spec's ``training``
    section.

    If ``epochs`` is given, only the rates of the first ``epochs`` epochs are returned. If the list
    is shorter, its last rate is repeated.

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
    """The rules for making batches from rows, as plain data that can be sent to a worker.

    - ``length`` is the number of characters of a row (a window of the text). ``stride`` is the
      number of characters from the start of a window to the start of the next. For data in arrays,
      both are 1.
    - ``drop_last`` is the number of rows that are dropped at the end.
    - ``offsets`` maps an array name to the distance in characters from the start of a window to the
      array's first character; None means an array of zeros.
    - ``batch`` is the number of rows in a batch. With ``whole_only``, an incomplete last batch is
      dropped.
    - The last ``held_out`` rows are never used for training. From the other rows, at most
      ``examples`` are used.
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


@dataclass(frozen=True, eq=False)
class RowArray:
    """The values of one input or target of the model for all rows, ``[rows, ...]``. Batches are
    converted to ``dtype``.

    If ``classes`` is not 0, the entries are indices, and a batch has a one-hot vector of this
    length for each index. If ``shared`` is true, the array has no row axis (e.g. graph edges), and
    every batch contains the whole array.
    """

    array: Array
    dtype: Any
    classes: int = 0
    shared: bool = False


class RowFeed:
    """A source of batches from ``total`` rows.

    ``given`` has the rules for making batches. ``time`` is the length of a sequence. ``arrays`` has
    the inputs and targets, with keys such as ``input.x`` and ``target.y``.

    Raises:
        UsageError: there are too few rows for a batch.
    """

    def __init__(
        self,
        program: Program,
        given: Recipe,
        total: int,
        time: int,
        dtype: str,
        seed: int,
        arrays: Mapping[str, RowArray],
    ) -> None:
        self.recipe, self.seed, self.total, self._arrays = given, seed, total, arrays
        self.rows = total - given.held_out
        if given.examples is not None:
            self.rows = min(self.rows, given.examples)
        self._program, self._noise = program, noise_ports(program)
        self._dtype, self._time = np.dtype(host_dtype(dtype)), time
        self._epochs: dict[int, Batches] = {}
        self.epoch(0)  # raise now, not in the worker, if there is no batch

    def epoch(self, number: int) -> Batches:
        """Return the row numbers of each batch in epoch ``number``. The order of the rows depends
        only on the seed and the epoch.

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
    def held_out_batch(self) -> int:
        """The number of rows in a batch of held-out rows; 0 if no rows are held out."""
        return min(self.recipe.batch, self.recipe.held_out)

    def held_out(self) -> Iterator[IndexArray]:
        """Yield the row numbers of each batch of held-out rows, in order. An incomplete last batch
        is left out."""
        size = self.held_out_batch
        if not size:
            return
        for start in range(self.total - self.recipe.held_out, self.total - size + 1, size):
            yield np.arange(start, start + size)

    def batch(
        self, rows: Array, compact: Collection[str] = (), step: int | None = None
    ) -> dict[str, Array]:
        """Return a dictionary with the model's inputs and targets for some rows, e.g. ``input.x``
        and ``target.y``.

        ``rows`` has row numbers. If its shape is ``[batch]``, the arrays have shapes such as
        ``[batch, time]``. If it is ``[steps, batch]``, they are ``[steps, batch, time]``. One-hot
        arrays whose names are in ``compact`` stay indices. With ``step``, the result also contains
        the model's noise for this step, or for as many steps as ``rows`` has, starting with this
        step.
        """
        selected = self.select_rows(rows)
        arrays = {n: a if n in compact else self.expand(n, a) for n, a in selected.items()}
        return (
            arrays if step is None or not self._noise else arrays | self._noise_arrays(rows, step)
        )

    def select_rows(self, rows: Array) -> dict[str, Array]:
        """Return the arrays of the given rows by name, without noise. One-hot arrays stay
        indices."""
        selected = {}
        for name, row_array in self._arrays.items():
            # A step gets a whole array if all rows share the array.
            shape = (*rows.shape[:-1], *row_array.array.shape)
            array = (
                np.broadcast_to(row_array.array, shape)
                if row_array.shared
                else row_array.array[rows]
            )
            selected[name] = array.astype(row_array.dtype, copy=False)
        return selected

    def expand(self, name: str, array: Array) -> Array:
        """Return the indices ``array`` as one-hot vectors, if the input or target ``name`` is
        one-hot; else return ``array`` unchanged."""
        classes = self._arrays[name].classes
        return hot_rows(array, classes, self._dtype) if classes else array

    @property
    def classes(self) -> dict[str, int]:
        """A dictionary from the name of each one-hot array to its number of classes."""
        return {name: one.classes for name, one in self._arrays.items() if one.classes}

    def _noise_arrays(self, rows: Array, step: int) -> dict[str, Array]:
        """Return the model's noise by name, e.g. ``input.eps``, for step ``step``. If ``rows`` is
        ``[steps, batch]``, the result has the noise of this many steps, starting with ``step``."""
        sizes = {"batch": rows.shape[-1], "time": self._time}
        count = len(rows) if rows.ndim > 1 else 1
        steps = [
            noise_of(self._program, sizes, self.seed, number)
            for number in range(step, step + count)
        ]
        arrays = {n: np.stack([one[n] for one in steps]).astype(self._dtype) for n in steps[0]}
        return {f"input.{n}": a if rows.ndim > 1 else a[0] for n, a in arrays.items()}


def recipe_of_rows(
    spec: Spec,
    rows: int,
    batch: int | None,
    held_out: float,
    cut: tuple[int, int, int] = (1, 1, 0),
    offsets: Mapping[str, int | None] | None = None,
) -> Recipe:
    """Return the rules for making a spec's batches from ``rows`` rows. ``held_out`` is the share of
    the rows that is held out, e.g. 0.1.

    ``batch`` is the batch size, or None for the spec's batch size. For a text, ``cut`` is a tuple:
    length of a window, stride, and number of rows to drop at the end. ``offsets`` is as in
    :class:`Recipe`.

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
    """Return the rules for making a spec's batches from a text of ``length`` characters.
    ``held_out`` is the share of the text that is held out, e.g. 0.1.

    Raises:
        UsageError: the spec has no ``data`` section for a text, or it has no optimizer. Or
            ``held_out`` is not at least 0 and below 1.
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
    HELD_OUT.check(held_out)
    cut = data.windows
    rows = max(0, row_count(length, cut.length, cut.stride, cut.drop_last))
    offsets = {name: source.offset for name, source in data.arrays.items()}
    return recipe_of_rows(
        spec, rows, batch, held_out, (cut.length, cut.stride, cut.drop_last), offsets
    )


class Feed(RowFeed):
    """Batches of a text. ``indices`` holds the vocabulary index of every character.

    A row is a window (a fixed number of characters) of the text. The shape of an input or target
    decides whether it gets one character of the window, all characters, or all characters one-hot.
    Windows are cut when a batch is made, so the text is stored once. Raise :class:`UsageError` if
    the text is too short for a batch.
    """

    def __init__(
        self, program: Program, given: Recipe, indices: Array, dtype: str, seed: int
    ) -> None:
        cut = {"length": given.length, "stride": given.stride, "drop_last": given.drop_last}
        total, largest = len(column(indices, **cut)), int(indices.max())

        def array_of(port: Port) -> RowArray:
            """Return the text as rows, ``[rows, ...]``, for the input or target ``port``."""
            type_, offset = program.type_of(port), given.offsets[port.name]
            if offset is None:
                shape = (total, *(dim.resolve(program.sizes) for dim in type_.shape[1:]))
                zeros = np.zeros((), host_dtype(dtype))
                return RowArray(np.broadcast_to(zeros, shape), zeros.dtype)
            classes = 0 if type_.bound is not None else type_.shape[-1].resolve(program.sizes)
            wide = len(type_.shape) - (classes > 0) > 1
            rows = (windows if wide else column)(indices, offset=offset, **cut)
            limit = type_.bound.resolve(program.sizes) if type_.bound is not None else classes
            # If the largest index of the text has a class, this part of the text has classes too.
            if largest >= limit and (found := int(rows.max())) >= limit:
                raise UsageError(
                    f"{port.name} has {limit} classes, but the text has characters with indices "
                    f"up to {found}"
                )
            return RowArray(rows, np.int64, classes)

        noise = noise_ports(program)
        arrays = {
            f"{group}.{port.name}": array_of(port)
            for group, ports in (("input", program.inputs), ("target", program.targets))
            for port in ports
            if port not in noise
        }
        super().__init__(program, given, total, given.length, dtype, seed, arrays)


def needed_sizes(spec: Spec, characters: int) -> dict[str, int]:
    """Return new values for the sizes of a spec that are too small for a text with ``characters``
    different characters, e.g. ``{"vocab": 90}``.

    Two kinds of sizes are considered: the limit of an index into the vocabulary, and the last axis
    of a one-hot array.
    """
    data = spec.model.data
    assert isinstance(data, schema.Data)
    program = spec.programs["training"]
    raised: dict[str, int] = {}
    for port in (*program.inputs, *program.targets):
        if port in noise_ports(program) or data.arrays[port.name].offset is None:
            continue
        type_ = program.type_of(port)
        dim = type_.bound if type_.bound is not None else type_.shape[-1]
        for name in dim.names:
            if program.sizes[name] < characters:
                raised[name] = characters
    return raised
