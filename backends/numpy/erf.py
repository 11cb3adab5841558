"""erf for numpy, which has none.

Within 4e-16 of C's in float64, relative to it, and within 2e-7 in float32; the tests measure it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from harness.extend import Array, series


@cache
def _columns(dtype: str) -> list[Array]:
    """Of each power, the coefficients at all points."""
    return [np.array(column, dtype) for column in series.erf_series()]


def erf(x: Array) -> Array:
    """erf(x), entry by entry, in the dtype of x: the series around the nearest point."""
    columns, kind = _columns(x.dtype.name), x.dtype.type
    size = np.minimum(np.abs(x), kind(series.LAST))
    nearest = np.rint(size * kind(1 / series.STEP))
    with np.errstate(invalid="ignore"):  # what a NaN is near to does not matter
        points: Any = nearest.astype(np.intp)
    distance = size - nearest * kind(series.STEP)
    result = np.take(columns[-1], points, mode="clip")
    for column in reversed(columns[:-1]):
        result = result * distance + np.take(column, points, mode="clip")
    return np.asarray(np.copysign(result, x))
