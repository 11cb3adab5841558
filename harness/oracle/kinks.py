"""Comparisons (e.g. ``x < 0``) whose result a rounding error may change.

This module measures how close the two operands of each comparison are, and how a program's results
change if a comparison gives the opposite result. For example, the gradient of relu jumps at 0 (a
kink). If a value is nearly 0, two correct gradients may differ by far more than a rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from harness.arrays import Array
from harness.oracle.draw import draw
from harness.oracle.oracle import TABLE, Oracle
from harness.oracle.time_limit import within_limits
from harness.oracle.user_arrays import UserArrays
from harness.program.ir import Program
from harness.runtime.answers import Arguments
from harness.runtime.session import Session

# If two operands are closer than this (relative to their size), float32 may order them differently.
KINK_MARGIN = 1e-5
# The noise includes the effect of flipped comparisons divided by KINKS. The tolerance is 16 times
# the noise (harness.oracle.tolerance.K), so it allows this effect twice.
KINKS = 8.0

Compare = Callable[[Array, Array], Array]
ORDERED = ("less", "less_equal")


class ComparisonRecorder(Oracle):
    """The oracle with a record of all comparisons and of the smallest difference (gap) between
    their operands.

    ``margin`` is the smallest gap, relative to the size of the operands. ``positive_margin`` is the
    smallest gap that is not 0: operands with a gap of 0 are equal on purpose, and so are equal in
    every backend. ``decisions`` lists the results of all comparisons, sorts and floors in order of
    execution.
    """

    def __init__(self) -> None:
        super().__init__()
        watched = {op: self._recorded_with_gap(TABLE[op]) for op in ORDERED}
        self._table = {**self._table, **watched, "equal": self._recorded(TABLE["equal"])}
        self._table["floor"] = self._floor
        self._table["argsort"] = self._argsort
        self.forget()

    def forget(self) -> None:
        """Delete the record of comparisons."""
        self.margin = self.positive_margin = np.inf
        self.decisions: list[Array] = []

    def _recorded(self, compare: Compare) -> Compare:
        def run(a: Array, b: Array) -> Array:
            self.decisions.append(compare(a, b))
            return self.decisions[-1]

        return run

    def _floor(self, x: Array) -> Array:
        """Compute floor, and record it as a comparison of ``x`` with the nearest whole number."""
        nearest = np.rint(x)
        self._near(x, np.where(np.isfinite(nearest), nearest, 0.0))
        self.decisions.append(np.asarray(TABLE["floor"](x)))
        return self.decisions[-1]

    def _argsort(self, x: Array) -> Array:
        """Compute argsort, and record it as comparisons of neighbouring entries in the sorted
        order."""
        order = TABLE["argsort"](x)
        ordered = np.take_along_axis(x, order, -1)
        first, second = ordered[..., :-1], ordered[..., 1:]
        finite = np.isfinite(first) & np.isfinite(second)  # the padding of a maximum is not
        self._near(first[finite], second[finite])
        self.decisions.append(order)
        return np.asarray(order)

    def _recorded_with_gap(self, compare: Compare) -> Compare:
        kept = self._recorded(compare)

        def run(a: Array, b: Array) -> Array:
            self._near(a, b)
            return kept(a, b)

        return run

    def _near(self, a: Array, b: Array) -> None:
        gaps = np.abs(np.subtract(a, b))
        size = max(_size(a), _size(b), 1e-300)
        self.margin = min(self.margin, float(np.min(gaps, initial=np.inf)) / size)
        positive = np.min(gaps, initial=np.inf, where=gaps > 0)
        self.positive_margin = min(self.positive_margin, float(positive) / size)


class FlippedComparisons(Oracle):
    """The oracle with flipped comparisons: a comparison of nearly equal operands returns the
    opposite result.

    In a model with millions of relus, some inputs are always so close to 0 that rounding errors
    decide whether they are positive. A backend that decides differently is not wrong. ``nearest``
    and ``furthest`` are the smallest and largest relative differences between operands of flipped
    comparisons.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin(0.0)
        self._table = {**self._table, **{op: self._flipped(TABLE[op]) for op in ORDERED}}
        self._table["argsort"] = self._swapped_argsort

    def begin(self, band: float, beyond: float = 0.0) -> None:
        """Start to flip comparisons. A comparison is flipped if the difference between its
        operands, relative to the larger operand, is above ``beyond`` and at most ``band``."""
        self._band, self._beyond = band, beyond
        self.nearest, self.furthest = np.inf, 0.0

    def _flipped(self, compare: Compare) -> Compare:
        def run(a: Array, b: Array) -> Array:
            near = self._near(np.abs(np.subtract(a, b)), max(_size(a), _size(b)))
            return np.asarray(compare(a, b) ^ near)

        return run

    def _near(self, gaps: Array, size: float) -> Array:
        # Compare in float64: numpy would convert a Python float to the narrow dtype of `gaps`, in
        # which the bound may overflow.
        near = (gaps > 0) & (gaps <= np.float64(self._band * size))
        if self._beyond:  # 0 times an infinite size is NaN
            near &= gaps > np.float64(self._beyond * size)
        if near.any():
            self.nearest = min(self.nearest, float(np.min(gaps[near])) / size)
            self.furthest = max(self.furthest, float(np.max(gaps[near])) / size)
        return np.asarray(near)

    def _swapped_argsort(self, x: Array) -> Array:
        """Compute argsort, but swap neighbouring entries in the sorted order if their difference is
        in the range of :meth:`begin`. Each entry is swapped at most once."""
        order = np.array(TABLE["argsort"](x))
        ordered = np.take_along_axis(x, order, -1)
        # The padding of a maximum is infinite, and never trades places.
        size = _size(np.where(np.isfinite(x), x, 0.0))
        with np.errstate(invalid="ignore"):
            near = self._near(ordered[..., 1:] - ordered[..., :-1], size)
        for position in range(near.shape[-1]):
            swapped = (
                near[..., position] & ~near[..., position - 1] if position else near[..., position]
            )
            first, second = order[..., position].copy(), order[..., position + 1].copy()
            order[..., position] = np.where(swapped, second, first)
            order[..., position + 1] = np.where(swapped, first, second)
        return order


class MaximumRecorder(Oracle):
    """The oracle with a record of the smallest difference (gap) between the largest and the
    second-largest entry over all calls of ``max``.

    ``gap`` is relative to the size of the operand; a gap of 0 (a tie) is ignored. The class
    :class:`ComparisonRecorder` cannot measure this gap, because it sees only comparisons of entries
    with the maximum.
    """

    def __init__(self) -> None:
        super().__init__()
        self._table = {**self._table, "max": self._max}
        self.forget()

    def forget(self) -> None:
        """Delete the recorded gap."""
        self.gap = np.inf

    def _max(self, x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
        largest = TABLE["max"](x, axis=axis, keepdims=True)
        below = np.where(x < largest, x, -np.inf)
        gaps = largest - TABLE["max"](below, axis=axis, keepdims=True)
        self.gap = min(self.gap, float(np.min(gaps, initial=np.inf)) / max(_size(x), 1e-300))
        return np.asarray(TABLE["max"](x, axis=axis, keepdims=keepdims))


def _size(array: Array) -> float:
    return float(np.max(np.abs(array), initial=0.0))


def kink_margin(program: Program, material: Arguments) -> float:
    """Return how close a forward pass on the arrays ``material`` comes to a kink: the smallest
    difference between the operands of any comparison, relative to the size of the operands."""
    oracle = ComparisonRecorder()
    session = Session(oracle, program, program, path="equations", dtype="float64")
    with within_limits():
        session.load(material.parameters, material.statistics)
        session.forward("training", material.inputs, material.state)
    return oracle.margin


def farthest_from_kinks(program: Program, materials: Iterable[Arguments]) -> Arguments:
    """Return the first of several sets of test arrays whose :func:`kink_margin` is at least
    :data:`KINK_MARGIN`. If there is no such set, return the set with the largest margin."""
    return max(materials, key=lambda material: min(kink_margin(program, material), KINK_MARGIN))


# Search for test arrays that avoid all kinks, so that two correct gradients agree.

SEEDS_TRIED = 40
# Factors for the matrices, tried in this order until float32 does not overflow.
GAINS = (1.0, 2.0**-2, 2.0**-4, 2.0**-8)

# A function that draws the test arrays of a case from its training program, its inference program
# and a seed; returns the seed that it finally used, and the arrays.
Drawing = Callable[[Program, Program, int], tuple[int, Arguments]]


def draw_off_kinks(
    training: Program,
    inference: Program,
    seed: int,
    *,
    batch: int,
    time: int,
    given: UserArrays | None = None,
    tries: int = SEEDS_TRIED,
) -> tuple[int, Arguments]:
    """Draw test arrays that avoid all kinks (points at which a derivative jumps). Try up
    to ``tries`` seeds. Return the seed that was used, and the arrays.

    The matrices are multiplied by a factor: the first in :data:`GAINS` with which float32 does not
    overflow. The user's arrays (``given``) replace drawn arrays.
    ``functools.partial(draw_off_kinks, batch=..., time=..., given=...)`` can be the ``drawing`` of
    a :class:`.Case`.
    """
    if given is not None and given.decides_forward:
        tries = 1

    def draw_once(gain: float, number: int) -> Arguments:
        material = draw(training, batch, time, number, gain)
        return material if given is None else given.over(material, training)

    for gain in GAINS:
        number, material = off_kinks(training, seed, partial(draw_once, gain), tries)
        if has_finite_results(training, inference, material):
            break
    return number, material


def off_kinks(
    program: Program, seed: int, draw_once: Callable[[int], Arguments], tries: int = SEEDS_TRIED
) -> tuple[int, Arguments]:
    """Draw test arrays by ``draw_once(seed)`` with up to ``tries`` different seeds. Return the
    first seed whose arrays avoid all kinks, and these arrays. If there is no such seed, return the
    seed with the largest :func:`kink_margin`, and its arrays."""
    first_seed = seed * SEEDS_TRIED
    if tries == 1:
        return first_seed, draw_once(first_seed)
    best: tuple[float, int, Arguments] | None = None
    for candidate_seed in range(first_seed, first_seed + tries):
        material = draw_once(candidate_seed)
        margin = kink_margin(program, material)
        if best is None or margin > best[0]:
            best = (margin, candidate_seed, material)
        if margin >= KINK_MARGIN:
            break
    assert best is not None
    return best[1], best[2]


def has_finite_results(training: Program, inference: Program, material: Arguments) -> bool:
    """Return whether a forward pass in float32 on the arrays ``material`` has only finite
    results."""
    session = Session(Oracle(), training, inference, path="equations", dtype="float32")
    session.load(material.parameters, material.statistics)
    results = session.forward("training", material.inputs, material.state)
    return all(bool(np.isfinite(array).all()) for array in results.values())
