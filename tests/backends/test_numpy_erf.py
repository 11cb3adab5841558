"""numpy's erf is C's to a few units in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.backends.numpy.erf import erf

PLACES = np.concatenate([np.linspace(-7, 7, 20_001), 10.0 ** np.linspace(-30, 2, 4_001)])


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 5e-16), ("float32", 4e-7)])
def test_it_is_as_near_as_it_says(dtype: str, allowed: float) -> None:
    x = PLACES.astype(dtype)
    expected = np.array([math.erf(float(v)) for v in x])
    found = erf(x)
    assert found.dtype == x.dtype
    scale = np.where(expected == 0, 1.0, np.abs(expected))
    assert np.max(np.abs(found - expected) / scale) < allowed


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ends_signs_and_what_is_no_number(dtype: str) -> None:
    found = erf(np.array([np.inf, -np.inf, 0.0, -0.0, np.nan], dtype))
    np.testing.assert_array_equal(found[:4], [1.0, -1.0, 0.0, 0.0])
    assert np.signbit(found[3])
    assert np.isnan(found[4])
    assert erf(np.zeros((2, 0, 3))).shape == (2, 0, 3)
