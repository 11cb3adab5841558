"""Taylor coefficients of erf, for backends whose framework has no erf."""

from __future__ import annotations

import math
from functools import cache

# The points around which erf is expanded lie between 0 and LAST, with a distance of STEP. Each
# series has TERMS terms. Above LAST, erf is 1 in float64.
STEP, LAST, TERMS = 1 / 16, 6.0, 10


@cache
def erf_series() -> tuple[tuple[float, ...], ...]:
    """Return the coefficients of the Taylor series of erf around points from 0 to :data:`LAST`.

    Item n of the result has the coefficients of the n-th power, one for each point. The derivatives
    are ``erf^(n+1)(x) = 2 / sqrt(pi) (-1)^n H_n(x) exp(-x^2)`` with the Hermite polynomials
    ``H_(n+1) = 2 x H_n - 2 n H_(n-1)`` (Abramowitz and Stegun, 7.2.10 and 22.7.13). The first
    omitted term is below 1e-17.
    """
    points = [number * STEP for number in range(round(LAST / STEP) + 1)]
    return tuple(zip(*map(_around, points), strict=True))


def _around(x: float) -> list[float]:
    coefficients = [math.erf(x)]
    bell = 2 / math.sqrt(math.pi) * math.exp(-x * x)
    before, hermite = 0.0, 1.0
    for n in range(TERMS - 1):
        coefficients.append((-1) ** n * hermite * bell / math.factorial(n + 1))
        before, hermite = hermite, 2 * x * hermite - 2 * n * before
    return coefficients
