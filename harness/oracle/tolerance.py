"""Tolerances. The rounding noise of a dtype is measured for each tensor, and the tolerance of this
tensor is K times the noise.

The error of a tensor is its largest deviation from the oracle, divided by its scale (see
:func:`scales`). The yardstick is the error of numpy, which runs the same equations on the same
numbers in the same dtype. It is the largest error over several orders of summation (see
:mod:`harness.oracle.yardstick`), and at least a quarter of a unit in the last place. The tolerance
is K times the yardstick. If the tolerance is at least half of the scale, the dtype is too coarse
for the tensor, and the tensor is not compared. ``docs/method.md`` shows how K was chosen.
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
FLOOR = 2.0**-25  # the least yardstick of float32; K times this is four units in the last place
ROUNDOFF = 2.0**-24  # of float32: half a unit in the last place of 1
VOID = 0.5
"""The tolerance at and above which a tensor is not compared: the comparison would prove nothing."""
DECADES = 5
"""The number of powers of ten below, and above, the tolerance in the histogram of errors."""
UNUSUAL = 8.0
"""An error, in yardsticks, that no correct backend reaches (docs/method.md: at most 7.03 with a
hundred seeds)."""
GROWN = 2.0
"""The factor by which an error, in yardsticks, must change between two runs to be reported."""

# The largest relative rounding error of each dtype, divided by that of float32.
PRECISION: Mapping[str, float] = {
    "float32": 1.0,
    "float64": 2.0**-29,
    "tf32": 2.0**13,
    "bfloat16": 2.0**16,
    "float16": 2.0**13,
}


@dataclass(frozen=True, slots=True)
class WorstEntry:
    """The entry of a tensor with the largest error. ``place`` is its index, e.g. ``(0, 3)``.
    ``found`` and ``expected`` are the backend's and the oracle's number as text.

    ``off`` is how many entries have an error above the tolerance, and ``entries`` is how many
    entries the tensor has. ``words`` replace the index in messages, e.g. by a function call.
    ``note`` is a text that is added to the message.
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
        details = ", ".join(filter(None, [count, self.note]))
        numbers = f"{self.words or entry} {self.found}, expected {self.expected}"
        return f"{numbers} ({details})" if details else numbers


@dataclass(frozen=True, slots=True)
class Deviation:
    """The result of comparing one tensor with the oracle. ``error``, ``yardstick`` and
    ``tolerance`` are relative to the scale of the tensor (see :func:`scales`).

    ``reason`` says why the tensor could not be compared, e.g. a wrong shape; otherwise it is "".
    ``spread`` is a histogram of errors. ``telling`` is False if the tensor is mostly rounding
    errors. ``point`` is the entry with the largest error; None if the tensor agrees.
    """

    name: str
    error: float
    yardstick: float
    tolerance: float
    reason: str = ""
    spread: tuple[int, ...] = ()  # histogram of errors, only for the worst tensor of a check
    telling: bool = True  # see :func:`telling`
    point: WorstEntry | None = None

    @property
    def ratio(self) -> float:
        """The error divided by the yardstick; 0 if the tensor is not compared."""
        return 0.0 if self.void else self.error / self.yardstick

    @property
    def unit(self) -> str:
        """A text that says what the error is relative to, e.g. " of its value". It is "" if the
        error is not finite."""
        if not math.isfinite(self.error):
            return ""
        return " of its value" if self.point and not self.point.place else " of its largest entry"

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name}: {self.reason}"
        if self.void and math.isinf(self.yardstick):
            return (
                f"{self.name} was not compared: it is infinite or NaN, or rounding can make it so"
            )
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
        """True if the tensor is not compared because its rounding errors are too large, e.g. if
        training diverges."""
        return not self.reason and self.tolerance >= VOID

    @property
    def agrees(self) -> bool:
        """True if the error is within the tolerance or the tensor is not compared. A NaN error is
        never within the tolerance."""
        return self.void or (not self.reason and self.error <= self.tolerance)


# If all entries of a tensor are below MILLIONTH of the largest entry of its kind, its scale is
# THOUSANDTH of that largest entry. Its noise is ROUNDINGS rounding errors, because a division by a
# small variance can magnify the errors.
MILLIONTH, THOUSANDTH, ROUNDINGS = 2.0**-20, 2.0**-10, 1024


def scales(expected: Arrays) -> dict[str, float]:
    """Return a dictionary from tensor name to scale: the number by which the tensor's error is
    divided. The scale is the largest magnitude in the tensor.

    If a tensor consists only of rounding errors (:func:`rounding_only`), its scale is
    :data:`THOUSANDTH` of the largest magnitude in all tensors of its kind (e.g. all gradients, see
    :func:`kind_of`). If all tensors of a kind are 0, their scale is 1.
    """
    magnitudes, kind_magnitudes = _magnitudes(expected)
    scale = {
        n: THOUSANDTH * kind_magnitudes[n] if _is_rounding_only(s, kind_magnitudes[n]) else s
        for n, s in magnitudes.items()
    }
    return {name: size or 1.0 for name, size in scale.items()}


def rounding_only(expected: Arrays) -> list[str]:
    """Return the names of tensors that consist only of rounding errors, e.g. the gradient of a bias
    before a normalisation. The entries of such a tensor are tiny relative to other tensors of its
    kind (e.g. to other gradients, see :func:`kind_of`)."""
    magnitudes, kind_magnitudes = _magnitudes(expected)
    return [
        name for name, size in magnitudes.items() if _is_rounding_only(size, kind_magnitudes[name])
    ]


def _is_rounding_only(size: float, largest: float) -> bool:
    return size < MILLIONTH * largest


def rounding_only_noise(dtype: str) -> float:
    """Return the least noise of a tensor that consists only of rounding errors, relative to the
    tensor's scale.

    The noise is :data:`ROUNDINGS` rounding errors, but small enough that the tensor is still
    compared. For a narrow dtype (e.g. bfloat16), the result is a single rounding error, which is
    already so large that the tensor is not compared.
    """
    rounding_error = ROUNDOFF / THOUSANDTH * PRECISION[dtype]
    return rounding_error if narrow(dtype) else min(ROUNDINGS * rounding_error, VOID / (2 * K))


def _magnitudes(expected: Arrays) -> tuple[dict[str, float], dict[str, float]]:
    """Return two dictionaries from tensor name to number: the largest magnitude in the tensor, and
    the largest magnitude in all tensors of its kind (e.g. all gradients, see :func:`kind_of`)."""
    magnitudes: dict[str, float] = {}
    kinds: dict[tuple[str, str], float] = {}
    for name, array in expected.items():
        magnitudes[name] = _largest(array)
        kind = kind_of(name)
        kinds[kind] = max(kinds.get(kind, 0.0), magnitudes[name])
    return magnitudes, {name: kinds[kind_of(name)] for name in magnitudes}


def _largest(array: Array) -> float:
    """Return the largest finite magnitude in an array, or 0 if no entry is finite."""
    largest = float(np.abs(array).max(initial=0.0))
    if np.isfinite(largest):
        return largest
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def kind_of(name: str) -> tuple[str, str]:
    """Return two parts of a tensor's name: the part before the first dot, and the text after the
    first space behind that dot.

    For example, ``step 1: out.W moved`` gives ``("step 1: out", "moved")``. Tensors with the same
    two parts are of one kind. Only such tensors have similar sizes: one slot of an optimizer may
    hold gradients, and another slot their squares.
    """
    prefix, _, suffix = name.partition(".")
    return prefix, suffix.partition(" ")[2]


# Largest float32 noise of a tensor that shows how well two computations agree. With more noise, all
# correct implementations differ: e.g. the gradient of attention's key bias is only rounding errors.
TELLING = 2.0**-12


def telling(noise: float, dtype: str) -> bool:
    """Return whether a tensor with the relative ``noise`` can show how well two computations agree.
    If the noise is large, the tensor is mostly rounding errors, and two correct results differ in
    most digits."""
    return noise <= TELLING * PRECISION[dtype]


def digits(error: float) -> float:
    """Return the number of correct decimal digits for a relative error, at most 16."""
    return max(0.0, min(16.0, -math.log10(max(error, 1e-16))))


def relative_error(actual: Array, expected: Array, scale: float) -> float:
    """Return the largest difference between the entries of ``actual`` and ``expected``, divided by
    ``scale``. Two NaN entries agree, and so do two equal infinities. If only one array has a NaN or
    an infinity at an entry, the result is inf."""
    actual = np.asarray(actual, np.float64)
    if actual.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        gap = np.abs(actual - expected)
        worst = float(gap.max())
        if not np.isfinite(worst):
            same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
            worst = float(np.where(same, 0.0, gap).max())
    return worst / scale if np.isfinite(worst) else float("inf")


def worst_point(actual: Array, expected: Array, errors: Array, allowed: float) -> WorstEntry:
    """Return the entry with the largest error. ``errors`` has the relative error of each entry. The
    result also counts the entries whose error exceeds ``allowed``. All arrays have the same shape.
    """
    position = tuple(int(index) for index in np.unravel_index(np.argmax(errors), errors.shape))
    values = actual[position], expected[position]
    numbers = [f"{float(number):.6g}" for number in values]
    if numbers[0] == numbers[1]:  # equal in six digits: show all
        with np.errstate(all="ignore"):
            numbers = [str(actual.dtype.type(number)) for number in values]
    wrong_count = int(np.count_nonzero(~(errors <= allowed)))
    return WorstEntry(position, numbers[0], numbers[1], wrong_count, errors.size)


def _errors(actual: Array, expected: Array, scale: float) -> Array:
    """Return, for each entry, the difference between ``actual`` and ``expected``, divided by
    ``scale``. NaN and infinities count as in :func:`relative_error`."""
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(actual, np.float64) - expected) / scale
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return np.where(same, 0.0, np.nan_to_num(gap, nan=np.inf, posinf=np.inf))


def spread(actual: Array, expected: Array, scale: float, tolerance: float) -> tuple[int, ...]:
    """Return a histogram of the errors of a tensor's entries, as ``2 * DECADES + 3`` counts.

    The first count is the number of exact entries. Each further count is for one power of ten of
    the ratio error / tolerance. The first of these counts is for ratios below ``10**-DECADES``. The
    last is for ratios of at least ``10**DECADES``, and for NaN.
    """
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(actual, np.float64) - expected).ravel()
        same = (
            (gap == 0)
            | (np.isnan(actual) & np.isnan(expected)).ravel()
            | (actual == expected).ravel()
        )
        decade = np.floor(np.log10(gap[~same] / (scale * tolerance)))
    decade = np.nan_to_num(decade, nan=DECADES, posinf=DECADES)
    bins = np.clip(decade, -DECADES - 1, DECADES).astype(int) + DECADES + 2
    counts = np.bincount(bins, minlength=2 * DECADES + 3)
    counts[0] = np.count_nonzero(same)
    return tuple(counts.tolist())


def deviation(
    name: str,
    actual: Any,
    expected: Array,
    scale: float,
    noise: float,
    dtype: str,
) -> Deviation:
    """Compare one tensor, ``actual``, with the oracle's tensor ``expected``. Errors are divided by
    ``scale``. ``noise`` is the measured rounding noise of the dtype. If ``noise`` is below the
    least possible yardstick, the least yardstick is used."""
    yardstick = max(noise, FLOOR * PRECISION[dtype])
    tolerance = K * yardstick
    array = tensor(actual)
    reason = shape_or_dtype_error(array, np.asarray(expected), dtype)
    if reason or isinstance(array, Misfit):
        return Deviation(name, float("inf"), yardstick, tolerance, reason)
    exact = np.asarray(expected, np.float64)
    error = relative_error(array, exact, scale)
    compared = Deviation(name, error, yardstick, tolerance, telling=telling(yardstick, dtype))
    if compared.agrees:
        return compared
    return replace(
        compared, point=worst_point(array, exact, _errors(array, exact, scale), tolerance)
    )


def shape_or_dtype_error(actual: Array | Misfit, expected: Array, dtype: str) -> str:
    """Return a message if ``actual`` has a different shape than ``expected`` or a wrong dtype,
    otherwise "". Floats must have ``dtype``, conditions must be booleans, and indices may be
    integers of any width."""
    if isinstance(actual, Misfit):
        return actual.reason
    if actual.shape != expected.shape:
        return f"expected shape {list(expected.shape)}, found {list(actual.shape)}"
    dtype_expected = np.dtype(dtype) if expected.dtype.kind == "f" else expected.dtype
    matches = actual.dtype.kind == dtype_expected.kind and (
        dtype_expected.kind != "f" or actual.dtype == dtype_expected
    )
    return "" if matches else f"expected dtype {dtype_expected}, found {actual.dtype}"


def compare(
    actual: Mapping[str, object], expected: Arrays, noise: Mapping[str, float], dtype: str
) -> list[Deviation]:
    """Compare all expected tensors with the tensors ``actual`` of the same names. ``noise`` maps a
    name to the rounding noise of the tensor. A tensor in ``actual`` with an unexpected name is
    reported as a deviation too."""
    scale = scales(expected)
    deviations = [
        deviation(name, actual.get(name), array, scale[name], noise.get(name, 0.0), dtype)
        for name, array in expected.items()
    ]
    unexpected = [name for name in actual if name not in expected]
    return deviations + [
        Deviation(name, float("inf"), 1.0, 0.0, "was not expected") for name in unexpected
    ]


def accuracy_change(old: float, new: float) -> Literal["lost", "gained", ""]:
    """Compare the accuracy of an old and a new run. Return "lost" or "gained" if rounding errors do
    not explain the change; otherwise "". ``old`` and ``new`` are the errors of the two runs, each
    divided by the yardstick of the same run.

    Different inputs, processors or orders of summation change the rounding errors, but they also
    change the yardstick, so the ratios stay comparable.
    """
    if new > max(UNUSUAL, GROWN * old) or math.isnan(new) > math.isnan(old):
        return "lost"
    if old > max(UNUSUAL, GROWN * new) or math.isnan(old) > math.isnan(new):
        return "gained"
    return ""


def worst(deviations: list[Deviation]) -> Deviation:
    """Return the deviation with the largest error relative to its tolerance. If all tensors agree,
    prefer a tensor that can show how well two computations agree (:func:`telling`)."""
    return max(deviations, key=_severity) if len(deviations) > 1 else deviations[0]


def prefixed(words: str, deviations: Iterable[Deviation]) -> list[Deviation]:
    """Return copies of the deviations, with ``words`` added before each name."""
    return [replace(d, name=words + d.name) for d in deviations]


def _severity(deviation: Deviation) -> tuple[bool, bool, float]:
    ratio = deviation.ratio
    is_telling = not deviation.agrees or deviation.telling
    return not deviation.agrees, is_telling, math.inf if math.isnan(ratio) else ratio
