"""How far a result may be off: measured against the noise of its dtype, with one factor K.

The error of a tensor is its largest deviation from the oracle over the oracle's largest magnitude
(see :func:`scales`).
The yardstick is the same error of numpy in the same dtype on the same equations and numbers, the
largest over several orders of summation (see :mod:`harness.oracle.yardstick`). What is allowed is K
times the yardstick, and never less than K times a floor of a quarter unit in the last place. Where
that is half of the tensor or more, the dtype has no answer, and nothing is compared.
``docs/method.md`` has the distribution that K was chosen from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harness.arrays import Array, Arrays
from harness.runtime.answers import Misfit, tensor
from harness.runtime.precision import narrow

K = 16.0
FLOOR = 2.0**-25  # of float32; K times it is 4.8e-7, four units in the last place
ROUNDOFF = 2.0**-24  # of float32: half a unit in the last place of 1
VOID = 0.5
"""A tolerance that says nothing."""
DECADES = 5
"""Of a tolerance, up and down, that the histogram of an error tells apart."""
UNUSUAL = 8.0
"""Yardsticks that no honest error reaches: 7.03 was most in a hundred seeds (docs/method.md)."""
GROWN = 2.0
"""By this factor an error, in yardsticks, must change between two runs to be spoken of."""

# Unit roundoff of a dtype relative to float32's.
PRECISION: Mapping[str, float] = {
    "float32": 1.0,
    "float64": 2.0**-29,
    "tf32": 2.0**13,
    "bfloat16": 2.0**16,
    "float16": 2.0**13,
}


@dataclass(frozen=True, slots=True)
class WorstEntry:
    """The entry of a tensor that is furthest off, with both numbers as text, and how many entries
    of how many are off.

    ``words`` say what was computed there, if that is more than the ``place``; a ``note`` what else
    is known of it.
    """

    place: tuple[int, ...]
    found: str
    expected: str
    off: int
    entries: int
    words: str = ""
    note: str = ""

    def __str__(self) -> str:
        entry = f"entry {list(self.place)} is" if self.place else "it is"
        count = f"{self.off} of {self.entries} entries off" if self.entries > 1 else ""
        more = ", ".join(filter(None, [count, self.note]))
        numbers = f"{self.words or entry} {self.found}, expected {self.expected}"
        return f"{numbers} ({more})" if more else numbers


@dataclass(frozen=True, slots=True)
class Deviation:
    """How one tensor compares: ``error`` against ``yardstick``, both relative to the oracle.

    ``point`` is the worst entry of a tensor that does not agree.
    """

    name: str
    error: float
    yardstick: float
    tolerance: float
    reason: str = ""
    spread: tuple[int, ...] = ()  # of the worst tensor of a check: see :func:`spread`
    telling: bool = True  # see :func:`telling`
    point: WorstEntry | None = None

    @property
    def ratio(self) -> float:
        """The error over the yardstick; 0 where nothing is compared."""
        return 0.0 if self.void else self.error / self.yardstick

    @property
    def unit(self) -> str:
        """What the error is relative to, as words behind it; empty if it is not finite."""
        if not math.isfinite(self.error):
            return ""
        return " of its value" if self.point and not self.point.place else " of its largest entry"

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name}: {self.reason}"
        if self.void and math.isinf(self.yardstick):
            return f"{self.name} was not compared: it is not finite here, or rounding makes it so"
        if self.void:
            return (
                f"{self.name} was not compared: rounding alone changes it by {self.yardstick:.1e}"
            )
        return (
            f"{self.name} is off by {self.error:.2e}{self.unit}, {self.ratio:.3g} times the "
            f"yardstick (allowed: {self.tolerance:.2e})"
        ) + (f": {self.point}" if self.point else "")

    @property
    def void(self) -> bool:
        """Whether the dtype itself has no answer here, as after a trajectory that diverges."""
        return not self.reason and self.tolerance >= VOID

    @property
    def agrees(self) -> bool:
        """Whether the error is allowed, or nothing can be said of it. A NaN error is not."""
        return self.void or (not self.reason and self.error <= self.tolerance)


# What is smaller than a millionth of the largest of its kind is held against a thousandth of that,
# and may be so many of its roundings: what cancels is larger where a small variance divides it.
MILLIONTH, THOUSANDTH, ROUNDINGS = 2.0**-20, 2.0**-10, 1024


def scales(expected: Arrays) -> dict[str, float]:
    """The scale of each tensor's error: its largest magnitude.

    Of one without a size of its own (:func:`without_size`) it is :data:`THOUSANDTH` of the largest
    among its kind, which is the part of the name before a dot, with what follows a space behind it
    (``step 1: out.W moved``). 1 where all are zero.
    """
    own, kind = _sizes(expected)
    beside = {n: THOUSANDTH * kind[n] if _is_lost(s, kind[n]) else s for n, s in own.items()}
    return {name: size or 1.0 for name, size in beside.items()}


def without_size(expected: Arrays) -> list[str]:
    """The tensors that are zero beside the largest of their kind and nothing but rounding, as the
    gradient of a bias before a normalisation."""
    own, kind = _sizes(expected)
    return [name for name, size in own.items() if _is_lost(size, kind[name])]


def _is_lost(size: float, largest: float) -> bool:
    return size < MILLIONTH * largest


def noise_without_size(dtype: str) -> float:
    """The least noise of those, relative to their scale. How rounding fell is luck, and they are
    what it left: :data:`ROUNDINGS`, or as much as still says something; of dtypes in which one is
    far more than they are, nothing does."""
    one = ROUNDOFF / THOUSANDTH * PRECISION[dtype]
    return one if narrow(dtype) else min(ROUNDINGS * one, VOID / (2 * K))


def _sizes(expected: Arrays) -> tuple[dict[str, float], dict[str, float]]:
    """The largest magnitude of each tensor, and that of its kind."""
    own: dict[str, float] = {}
    kinds: dict[tuple[str, str], float] = {}
    for name, array in expected.items():
        own[name] = _largest(array)
        kind = kind_of(name)
        kinds[kind] = max(kinds.get(kind, 0.0), own[name])
    return own, {name: kinds[kind_of(name)] for name in own}


def _largest(array: Array) -> float:
    """The largest magnitude of what is finite; 0 of nothing."""
    largest = float(np.abs(array).max(initial=0.0))
    if np.isfinite(largest):
        return largest
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def kind_of(name: str) -> tuple[str, str]:
    """How far a parameter has moved, and each slot of it, are kinds of their own: one may hold
    gradients, and another their squares."""
    first, _, rest = name.partition(".")
    return first, rest.partition(" ")[2]


# A tensor of which rounding to float32 alone changes more has few digits whoever computes it: the
# gradient of attention's bias of keys is nothing but rounding. How well others agree is told by
# others.
TELLING = 2.0**-12


def telling(noise: float, dtype: str) -> bool:
    """Whether a tensor of so much noise in a dtype says how well two computations agree: not where
    it is nothing but rounding."""
    return noise <= TELLING * PRECISION[dtype]


def digits(error: float) -> float:
    """Decimal digits that a relative error leaves, 16 at most."""
    return max(0.0, min(16.0, -math.log10(max(error, 1e-16))))


def relative_error(found: Array, expected: Array, scale: float) -> float:
    """Largest deviation over ``scale``.

    Places where both are NaN or the same infinity are equal; where only one is, the error is inf.
    """
    found = np.asarray(found, np.float64)
    if found.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        gap = np.abs(found - expected)
        worst = float(gap.max())
        if not np.isfinite(worst):
            same = (found == expected) | (np.isnan(found) & np.isnan(expected))
            worst = float(np.where(same, 0.0, gap).max())
    return worst / scale if np.isfinite(worst) else float("inf")


def worst_point(found: Array, expected: Array, errors: Array, allowed: float) -> WorstEntry:
    """Return the entry with the largest error. All arrays have one shape; an entry that is not
    finite where it must be has an infinite error."""
    place = tuple(int(index) for index in np.unravel_index(np.argmax(errors), errors.shape))
    pair = found[place], expected[place]
    numbers = [f"{float(number):.6g}" for number in pair]
    if numbers[0] == numbers[1]:  # all digits tell apart what six do not
        with np.errstate(all="ignore"):
            numbers = [str(found.dtype.type(number)) for number in pair]
    off = int(np.count_nonzero(~(errors <= allowed)))
    return WorstEntry(place, numbers[0], numbers[1], off, errors.size)


def _errors(found: Array, expected: Array, scale: float) -> Array:
    """The error of each entry, over ``scale``, as :func:`relative_error` counts it."""
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(found, np.float64) - expected) / scale
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return np.where(same, 0.0, np.nan_to_num(gap, nan=np.inf, posinf=np.inf))


def spread(found: Array, expected: Array, scale: float, tolerance: float) -> tuple[int, ...]:
    """How many entries of a tensor are off by how much: the histogram of its error.

    First those that are exact; then, by decades of what is allowed, from below ``10**-DECADES`` of
    the tolerance to ``10**DECADES`` of it and more, or no number: ``2 * DECADES + 3`` counts.
    """
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(found, np.float64) - expected).ravel()
        same = (
            (gap == 0)
            | (np.isnan(found) & np.isnan(expected)).ravel()
            | (found == expected).ravel()
        )
        decade = np.floor(np.log10(gap[~same] / (scale * tolerance)))
    decade = np.nan_to_num(decade, nan=DECADES, posinf=DECADES)
    places = np.clip(decade, -DECADES - 1, DECADES).astype(int) + DECADES + 2
    counts = np.bincount(places, minlength=2 * DECADES + 3)
    counts[0] = np.count_nonzero(same)
    return tuple(counts.tolist())


def deviation(
    name: str,
    found: Any,
    expected: Array,
    scale: float,
    noise: float,
    dtype: str,
) -> Deviation:
    """Compare one tensor. ``noise`` is the yardstick of the dtype, before the floor."""
    yardstick = max(noise, FLOOR * PRECISION[dtype])
    tolerance = K * yardstick
    array = tensor(found)
    wrong = wrong_form(array, np.asarray(expected), dtype)
    if wrong or isinstance(array, Misfit):
        return Deviation(name, float("inf"), yardstick, tolerance, wrong)
    exact = np.asarray(expected, np.float64)
    error = relative_error(array, exact, scale)
    compared = Deviation(name, error, yardstick, tolerance, telling=telling(yardstick, dtype))
    if compared.agrees:
        return compared
    return replace(
        compared, point=worst_point(array, exact, _errors(array, exact, scale), tolerance)
    )


def wrong_form(found: Array | Misfit, expected: Array, dtype: str) -> str:
    """Why a value is none of its kind; empty if it is one. Floats have ``dtype``; conditions are
    booleans, and indices whole numbers of any width."""
    if isinstance(found, Misfit):
        return found.reason
    if found.shape != expected.shape:
        return f"expected shape {list(expected.shape)}, found {list(found.shape)}"
    wanted = np.dtype(dtype) if expected.dtype.kind == "f" else expected.dtype
    same = found.dtype.kind == wanted.kind and (wanted.kind != "f" or found.dtype == wanted)
    return "" if same else f"expected dtype {wanted}, found {found.dtype}"


def compare(
    found: Mapping[str, object], expected: Arrays, noise: Mapping[str, float], dtype: str
) -> list[Deviation]:
    """One deviation for every expected tensor; what was not expected differs too."""
    scale = scales(expected)
    deviations = [
        deviation(name, found.get(name), array, scale[name], noise.get(name, 0.0), dtype)
        for name, array in expected.items()
    ]
    unexpected = [name for name in found if name not in expected]
    return deviations + [
        Deviation(name, float("inf"), 1.0, 0.0, "was not expected") for name in unexpected
    ]


def moved(old: float, new: float) -> Literal["lost", "gained", ""]:
    """Whether accuracy was lost or gained from one run to another, beyond what rounding explains.

    Both errors are in yardsticks, each of its own run: where other numbers, another processor or
    another order of summation make the rounding larger, the yardstick has grown with it.
    """
    if new > max(UNUSUAL, GROWN * old) or math.isnan(new) > math.isnan(old):
        return "lost"
    if old > max(UNUSUAL, GROWN * new) or math.isnan(old) > math.isnan(new):
        return "gained"
    return ""


def worst(deviations: list[Deviation]) -> Deviation:
    """The deviation that is furthest beyond what is allowed; where all are allowed, of those that
    tell something, if any do."""
    return max(deviations, key=_beyond) if len(deviations) > 1 else deviations[0]


def prefixed(words: str, deviations: Iterable[Deviation]) -> list[Deviation]:
    """The same deviations with words before their names, which say where they were found."""
    return [replace(d, name=words + d.name) for d in deviations]


def _beyond(deviation: Deviation) -> tuple[bool, bool, float]:
    ratio = deviation.ratio
    tells = not deviation.agrees or deviation.telling
    return not deviation.agrees, tells, math.inf if math.isnan(ratio) else ratio
