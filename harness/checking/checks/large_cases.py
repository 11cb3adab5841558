"""Cases of many examples, time steps, units and classes, and of many of what a model has few of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.errors import SpecError
from harness.oracle.case import Case, entries_of
from harness.oracle.draw import draw
from harness.oracle.kinks import furthest
from harness.oracle.off_kinks import off_kinks
from harness.program.fitting_sizes import fits, nearest_sizes
from harness.program.ir import Phase, Port, Program
from harness.runtime.arguments import Arguments

# Of a training and of an inference the examples and units, and the steps of time. Each is beyond a
# power of two at which a buffer, a block or a type may end: of the batch 32 and 64, of time 16 and
# 32, of classes 64, 128 and 256. There are as many units as examples, so that one axis may be taken
# for the other. In one of both they fill whole tiles of 32, and time whole eights, as those of
# users do, and in the other they leave a rest; others do not fill tiles, or where there are none,
# classes.
LARGE: Mapping[Phase, tuple[int, int]] = {"training": (96, 35), "inference": (99, 24)}
CLASSES, OTHERS, REMAINDER = 304, 51, 4
# Different examples in a batch. Only those have comparisons of their own, and with few of them
# none lies so near to its threshold that float32 falls to the other side.
DISTINCT = 3
# What is small in a spec is so in all cases: heads of attention, experts. Beyond 16 of them no more
# than so many numbers of a model make a case.
MANY, ENTRIES = 17, 600_000
# Whole batches of more numbers are not made.
MOST = 4_000_000
# Sizes as users have them, for which kernels may have a way of their own, are multiples of this.
TILE = 16
_cases: WeakKeyDictionary[Case, dict[Phase, Case]] = WeakKeyDictionary()
_numerous: WeakKeyDictionary[Case, Case | None] = WeakKeyDictionary()
_making = Lock()


def large_case(case: Case, own: Case, phase: Phase) -> Case:
    """The large case of a spec for gradients, or for inferences, made once for all backends."""
    with _making:
        cases = _cases.setdefault(case, {})
        if phase not in cases:
            units, time = LARGE[phase]
            sizes = _sizes(case, own, units)
            batch = own.batch if case.batch == own.batch else units
            time = own.time if case.time == own.time else time
            batch, time = nearest_sizes(case.spec.program(**sizes), batch, time)
            drawing = partial(_repeated, batch=batch, time=time)
            cases[phase] = Case(case.spec, sizes, batch, time, case.seed, drawing=drawing)
        return cases[phase]


def _sizes(case: Case, own: Case, units: int) -> dict[str, int]:
    """Large numbers for the sizes that a run has not set: those are the same in both cases."""
    program, free = case.training, _free(case, own)
    inner = [n for n in free if n not in _classes(program)]
    classes = count(CLASSES if inner[1:] else CLASSES - REMAINDER, TILE)
    others = count(OTHERS, TILE)
    sizes = dict(own.training.sizes)
    for name in (n for n in sizes if n in free):
        if name in inner:
            sizes[name] = units if name == inner[0] else next(others)
        else:
            sizes[name] = next(classes)
    try:
        case.spec.program(**sizes)
    except SpecError:  # a model that slices an axis, say, may hold at few sizes
        return dict(own.training.sizes)
    return sizes


def numerous_case(case: Case, own: Case) -> Case | None:
    """The case of a spec with more than 16 of what it has few of, made once for all backends; None
    where it has all in plenty."""
    with _making:
        if case not in _numerous:
            sizes, made = _more(case, own), None
            if sizes != case.training.sizes:
                made = Case(case.spec, sizes, case.batch, case.time, case.seed)
            _numerous[case] = made
        return _numerous[case]


def whole_batch(case: Case) -> Arguments | None:
    """A batch of as many examples as the spec trains with: those of a small case, which are off all
    kinks, in rows at random, and targets of their own. None if the spec does not say how many, or
    if they are too many."""
    training = case.spec.model.training
    batch = 0 if training is None else nearest_sizes(case.training, training.batch, case.time)[0]
    if not batch or entries_of(case.training, batch, case.time) > MOST:
        return None

    def made(number: int) -> Arguments:
        rows = np.random.default_rng(number).integers(0, case.batch, batch)

        def repeated(ports: tuple[Port, ...], arrays: ArrayDict) -> ArrayDict:
            return {
                port.name: _taken(case.training, port, arrays[port.name], rows) for port in ports
            }

        return replace(
            case.batch_of(batch, case.time, number),
            inputs=repeated(case.training.inputs, case.material.inputs),
            state=repeated(case.training.state, case.material.state),
        )

    return case.found_once("whole batch", lambda: furthest(case.training, map(made, range(4))))


def _free(case: Case, own: Case) -> dict[str, int]:
    """The spec's numbers for the sizes that are smaller in a case, the largest first."""
    sizes = own.training.sizes
    free = {
        n: size
        for n, size in sizes.items()
        if case.training.sizes[n] != size and n not in case.training.structural
    }
    return {n: sizes[n] for n in sorted(free, key=free.__getitem__, reverse=True)}


def _more(case: Case, own: Case) -> dict[str, int]:
    """Numbers above 16 for the sizes that are as small in the spec itself, the smallest first, as
    far as the model holds at them and has no more than :data:`ENTRIES` numbers."""
    program, stated = case.training, case.spec.model.sizes
    few = {
        n: size
        for n, size in program.sizes.items()
        if size == own.training.sizes[n] == stated.get(n)
        and 1 < size < MANY
        and n not in program.structural
    }
    sizes, numbers = dict(program.sizes), count(MANY)
    for name in sorted(few, key=few.__getitem__):
        tried = {**sizes, name: next(numbers)}
        try:
            made = case.spec.program(**tried)
        except SpecError:  # a part may not be larger than the whole, say
            continue
        entries = entries_of(made, case.batch, case.time)
        if entries <= ENTRIES and fits(made, case.batch, case.time):
            sizes = tried
    return sizes


def _classes(program: Program) -> set[str]:
    """The sizes that are numbers of classes: bounds of indices, and last axes of targets."""
    types = [program.type_of(port) for port in (*program.inputs, *program.targets)]
    bounds = {str(type_.bound) for type_ in types if type_.bound is not None}
    targets = [program.type_of(port) for port in program.targets]
    return bounds | {str(t.shape[-1]) for t in targets if t.bound is None and t.shape}


def _repeated(
    training: Program, _: Program, seed: int, *, batch: int, time: int
) -> tuple[int, Arguments]:
    """Material whose batch is a few examples in many rows, with one index in half of all places;
    off all kinks. See :data:`.off_kinks.Drawing`."""
    sizes = {**training.sizes, "batch": batch, "time": time}

    def made(number: int) -> Arguments:
        given = draw(training, batch, time, number)
        # At random: of rows in turn, one that is read in another's place would often be the same.
        rows = np.random.default_rng(number).integers(0, DISTINCT, batch)
        rows %= batch

        def arrays(ports: tuple[Port, ...], found: ArrayDict) -> ArrayDict:
            return {
                port.name: _rows(training, port, found[port.name], rows, sizes) for port in ports
            }

        inputs = arrays(training.inputs, given.inputs)
        state = arrays(training.state, given.state)
        return replace(given, inputs=inputs, state=state)

    return off_kinks(training, seed, made)


def _rows(
    program: Program, port: Port, array: Array, rows: Array, sizes: Mapping[str, int]
) -> Array:
    type_ = program.type_of(port)
    if type_.bound is not None:
        array = np.array(array)
        array.flat[::2] = type_.bound.resolve(sizes) - 1
    return _taken(program, port, array, rows)


def _taken(program: Program, port: Port, array: Array, rows: Array) -> Array:
    """Some rows of an array; of one without a batch, all of it."""
    axes = [str(dim) for dim in program.type_of(port).shape]
    return np.take(array, rows, axes.index("batch")) if "batch" in axes else array
