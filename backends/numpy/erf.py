"""The error function erf, which numpy does not have.

The tests measure the relative difference from C's ``erf``: at most 4e-16 in float64 and 4e-7 in
float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from harness.extend import Array
from harness.extend.executor import Call
from harness.extend.program import series

# For larger x, erf(x) is 1 in float32, and so is this approximation.
LAST = 3.93
# Up to LAST, erf(x) = x P(x^2) / Q(x^2) with polynomials of degree five. Coefficients start with
# the constant. The quotient is the minimax approximation (relative error 2e-8) by Lawson's
# iteration.
P = (
    *(1.1283791065216064, 0.1904064565896988, 0.05274871736764908),
    *(0.003765616100281477, 0.0002848826698027551, 2.050087005045498e-06),
)
Q = (
    *(1.0, 0.5020760893821716, 0.114109106361866),
    *(0.014969213865697384, 0.0011625352781265974, 3.809170812019147e-05),
)
# The number of float32 scratch arrays that erf_calls needs.
SCRATCH = 4


@cache
def _columns(dtype: str) -> list[Array]:
    """Return the coefficients of the Taylor series of erf around a fixed list of points: one array
    for each power, with an entry for each point."""
    return [np.array(column, dtype) for column in series.erf_series()]


@cache
def _numbers(numbers: Sequence[float]) -> list[Array]:
    """Return numbers as arrays without axes. numpy's functions accept such arrays four times faster
    than Python floats."""
    return [np.array(number, np.float32) for number in numbers]


def erf(x: Array) -> Array:
    """Return erf(x) of each entry, in the dtype of x."""
    if x.dtype == np.float32:
        out = np.empty(x.shape, x.dtype)
        for call in erf_calls(out, x, [np.empty(x.shape, x.dtype) for _ in range(SCRATCH)]):
            call()
        return out
    return _erf_around_points(x)


def erf_calls(out: Array, x: Array, scratch: Sequence[Array]) -> Iterator[Call]:
    """Yield functions without arguments. If they are called in order, they write erf(x) in float32,
    computed as a quotient of polynomials, to ``out``. ``scratch`` are arrays for intermediate
    values."""
    bounded, square, upper, lower = scratch
    low, high, one, minus_one = _numbers((-LAST, LAST, 1.0, -1.0))
    yield partial(np.minimum, x, high, out=bounded)
    yield partial(np.maximum, bounded, low, out=bounded)
    yield partial(np.multiply, bounded, bounded, square)
    for polynomial, coefficients in ((upper, _numbers(P)), (lower, _numbers(Q))):
        yield partial(np.multiply, square, coefficients[-1], polynomial)
        for coefficient in coefficients[-2:0:-1]:
            yield partial(np.add, polynomial, coefficient, polynomial)
            yield partial(np.multiply, polynomial, square, polynomial)
        yield partial(np.add, polynomial, coefficients[0], polynomial)
    yield partial(np.multiply, upper, bounded, upper)
    yield partial(np.divide, upper, lower, upper)
    yield partial(np.minimum, upper, one, out=upper)
    yield partial(np.maximum, upper, minus_one, out=out)


def _erf_around_points(x: Array) -> Array:
    """Return erf(x), computed by the Taylor series around the nearest of a fixed list of points."""
    columns, kind = _columns(x.dtype.name), x.dtype.type
    size = np.minimum(np.abs(x), kind(series.LAST))
    nearest = np.rint(size * kind(1 / series.STEP))
    with np.errstate(invalid="ignore"):  # for NaN, any point may be used
        points: Any = nearest.astype(np.intp)
    distance = size - nearest * kind(series.STEP)
    result = np.take(columns[-1], points, mode="clip")
    for column in reversed(columns[:-1]):
        result = result * distance + np.take(column, points, mode="clip")
    return np.asarray(np.copysign(result, x))
