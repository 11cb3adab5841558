"""Tolerances: K times the noise of the dtype, measured for each tensor.

The error of a tensor is its largest deviation from the oracle, divided by its scale (see
:func:`scales`). The yardstick is the same error of numpy in the same dtype on the same equations
and numbers, the largest over several orders of summation (see :mod:`harness.oracle.yardstick`). The
tolerance is K times the yardstick, and at least K times a quarter unit in the last place. If the
tolerance is half of the tensor or more, the dtype has no answer, and nothing is compared.
``docs/method.md`` has the distribution from which K was chosen.
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
"""The tolerance from which on a comparison says nothing."""
DECADES = 5
"""Decades below and above the tolerance in the histogram of an error."""
UNUSUAL = 8.0
"""Yardsticks that no correct backend reaches: at most 7.03 in a hundred seeds (docs/method.md)."""
GROWN = 2.0
"""The factor by which an error in yardsticks must change between two runs to be reported."""

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
    """The entry of a tensor with the largest error, with both numbers as text and a count of
    errors.

    ``words`` name the computed quantity if the ``place`` is not enough. ``note`` adds more facts.
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
    """The comparison of one tensor: ``error`` against ``yardstick``, both relative to the oracle.
    ``point`` is the worst entry of a tensor that does not agree."""

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
        """The error over the yardstick; 0 if nothing is compared."""
        return 0.0 if self.void else self.error / self.yardstick

    @property
    def unit(self) -> str:
        """Words that name the scale of the error; empty if the error is not finite."""
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
        """True if the dtype itself has no answer here, as after a trajectory that diverges."""
        return not self.reason and self.tolerance >= VOID

    @property
    def agrees(self) -> bool:
        """True if the error is allowed or nothing is compared. A NaN error is not allowed."""
        return self.void or (not self.reason and self.error <= self.tolerance)


# A tensor below MILLIONTH of the largest of its kind is compared relative to THOUSANDTH of that
# largest, with ROUNDINGS roundings of noise: a small variance that divides a cancelled sum makes it
# larger.
MILLIONTH, THOUSANDTH, ROUNDINGS = 2.0**-20, 2.0**-10, 1024


def scales(expected: Arrays) -> dict[str, float]:
    """Return the scale of each tensor's error: its largest magnitude.

    A tensor without a size of its own (:func:`without_size`) gets :data:`THOUSANDTH` of the largest
    magnitude of its kind (:func:`kind_of`). The scale is 1 if all are zero.
    """
    own, kind = _sizes(expected)
    beside = {n: THOUSANDTH * kind[n] if _is_lost(s, kind[n]) else s for n, s in own.items()}
    return {name: size or 1.0 for name, size in beside.items()}


def without_size(expected: Arrays) -> list[str]:
    """Return the tensors that are only rounding error: zero beside the largest of their kind. An
    example is the gradient of a bias before a normalisation."""
    own, kind = _sizes(expected)
    return [name for name, size in own.items() if _is_lost(size, kind[name])]


def _is_lost(size: float, largest: float) -> bool:
    return size < MILLIONTH * largest


def noise_without_size(dtype: str) -> float:
    """Return the least noise of tensors without a size, relative to their scale.

    It is :data:`ROUNDINGS` roundings, capped so that a comparison still says something. In a narrow
    dtype it is one rounding, which already makes the comparison void.
    """
    one = ROUNDOFF / THOUSANDTH * PRECISION[dtype]
    return one if narrow(dtype) else min(ROUNDINGS * one, VOID / (2 * K))


def _sizes(expected: Arrays) -> tuple[dict[str, float], dict[str, float]]:
    """Return the largest magnitude of each tensor, and of its kind, by name."""
    own: dict[str, float] = {}
    kinds: dict[tuple[str, str], float] = {}
    for name, array in expected.items():
        own[name] = _largest(array)
        kind = kind_of(name)
        kinds[kind] = max(kinds.get(kind, 0.0), own[name])
    return own, {name: kinds[kind_of(name)] for name in own}


def _largest(array: Array) -> float:
    """Return the largest finite magnitude, or 0 if there is none."""
    largest = float(np.abs(array).max(initial=0.0))
    if np.isfinite(largest):
        return largest
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def kind_of(name: str) -> tuple[str, str]:
    """Return the kind of a name: the part before the first dot, and the word behind a later space.

    The kind of ``step 1: out.W moved`` is ``step 1: out`` with ``moved``. Displacements and each
    slot are different kinds: one slot may hold gradients, and a second one their squares.
    """
    first, _, rest = name.partition(".")
    return first, rest.partition(" ")[2]


# A tensor with more float32 noise has few digits in every implementation: the gradient of
# attention's key bias is only rounding error. Other tensors show how well two computations agree.
TELLING = 2.0**-12


def telling(noise: float, dtype: str) -> bool:
    """Return whether a tensor with this noise shows how well two computations agree. It does not if
    it is only rounding error."""
    return noise <= TELLING * PRECISION[dtype]


def digits(error: float) -> float:
    """Return the decimal digits that a relative error leaves, at most 16."""
    return max(0.0, min(16.0, -math.log10(max(error, 1e-16))))


def relative_error(found: Array, expected: Array, scale: float) -> float:
    """Return the largest deviation over ``scale``. Places where both are NaN or the same infinity
    are equal. If only one is, the error is inf."""
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
    """Return the entry with the largest error; all arrays have the same shape. An entry that should
    be finite and is not has an infinite error."""
    place = tuple(int(index) for index in np.unravel_index(np.argmax(errors), errors.shape))
    pair = found[place], expected[place]
    numbers = [f"{float(number):.6g}" for number in pair]
    if numbers[0] == numbers[1]:  # equal in six digits: show all
        with np.errstate(all="ignore"):
            numbers = [str(found.dtype.type(number)) for number in pair]
    off = int(np.count_nonzero(~(errors <= allowed)))
    return WorstEntry(place, numbers[0], numbers[1], off, errors.size)


def _errors(found: Array, expected: Array, scale: float) -> Array:
    """Return the error of each entry over ``scale``, as :func:`relative_error` counts it."""
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(found, np.float64) - expected) / scale
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return np.where(same, 0.0, np.nan_to_num(gap, nan=np.inf, posinf=np.inf))


def spread(found: Array, expected: Array, scale: float, tolerance: float) -> tuple[int, ...]:
    """Return the histogram of a tensor's error: ``2 * DECADES + 3`` counts of entries.

    The first count is of exact entries. The others are decades of the tolerance, from below
    ``10**-DECADES`` of it to ``10**DECADES`` of it and more, NaN included.
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
    """Return why a value has the wrong form; empty if the form is right. Floats have ``dtype``.
    Conditions are booleans, and indices are integers of any width."""
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
    """Compare tensors by name: one deviation per expected tensor, and one per unexpected tensor."""
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
    """Return whether accuracy was lost or gained between two runs, beyond what rounding explains.

    Both errors are in yardsticks of their own run. If different numbers, processors or orders of
    summation make rounding larger, the yardstick grows too.
    """
    if new > max(UNUSUAL, GROWN * old) or math.isnan(new) > math.isnan(old):
        return "lost"
    if old > max(UNUSUAL, GROWN * new) or math.isnan(old) > math.isnan(new):
        return "gained"
    return ""


def worst(deviations: list[Deviation]) -> Deviation:
    """Return the deviation furthest beyond its tolerance; if all agree, prefer a telling one."""
    return max(deviations, key=_beyond) if len(deviations) > 1 else deviations[0]


def prefixed(words: str, deviations: Iterable[Deviation]) -> list[Deviation]:
    """Return the deviations with ``words`` before their names."""
    return [replace(d, name=words + d.name) for d in deviations]


def _beyond(deviation: Deviation) -> tuple[bool, bool, float]:
    ratio = deviation.ratio
    tells = not deviation.agrees or deviation.telling
    return not deviation.agrees, tells, math.inf if math.isnan(ratio) else ratio
