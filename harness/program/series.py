"""Series of functions that a library lacks, as plain numbers."""

from __future__ import annotations

import math
from functools import cache

# Points of the series of erf, from 0 to LAST, STEP apart, and as many TERMS around each. From LAST
# on erf is 1 in float64.
STEP, LAST, TERMS = 1 / 16, 6.0, 10


@cache
def erf_series() -> tuple[tuple[float, ...], ...]:
    """Return the coefficients of erf's Taylor series around points: for each power those of all
    points.

    The derivatives are those of the integrand, ``erf^(n+1)(x) = 2 / sqrt(pi) (-1)^n H_n(x)
    exp(-x^2)`` with Hermite's polynomials, ``H_(n+1) = 2 x H_n - 2 n H_(n-1)`` (Abramowitz and
    Stegun, 7.2.10 and 22.7.13). The first term left out is below 1e-17.
    """
    points = [number * STEP for number in range(round(LAST / STEP) + 1)]
    return tuple(zip(*map(_around, points), strict=True))


def _around(x: float) -> list[float]:
    found = [math.erf(x)]
    bell = 2 / math.sqrt(math.pi) * math.exp(-x * x)
    before, hermite = 0.0, 1.0
    for n in range(TERMS - 1):
        found.append((-1) ** n * hermite * bell / math.factorial(n + 1))
        before, hermite = hermite, 2 * x * hermite - 2 * n * before
    return found
