"""Primitives made of the functions of a framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.backends.numpy.primitives import PRIMITIVES
from harness.runtime.kernels import one_hot, reduction, segment_sum, slice_axis, take_rows

RANDOM = np.random.default_rng(7)


def indices(*shape: int) -> Any:
    return RANDOM.integers(0, 5, shape)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 2)])
@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
def test_indices_may_have_any_number_of_axes(shape: tuple[int, ...], rest: Any) -> None:
    places = indices(*shape)
    x, summed = RANDOM.normal(size=(5, *rest)), RANDOM.normal(size=(*shape, *rest))
    plain = take_rows(lambda x, i: np.take(x, i, axis=0) if i.ndim == 1 else None)
    np.testing.assert_array_equal(plain(x, places), x[places])
    expected = PRIMITIVES["segment_sum"](summed, places, rows=6)
    np.testing.assert_allclose(segment_sum(np)(summed, places, rows=6), expected)
    made = one_hot(np.arange, lambda x, dtype: x.astype(dtype))(places, 5, "float32")
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, np.eye(5)[places])


def test_a_nan_stays_in_its_row() -> None:
    x = np.array([1.0, np.nan, 2.0, np.inf])
    found = segment_sum(np)(x, np.array([0, 1, 0, 2]), rows=4)
    np.testing.assert_array_equal(found, [3.0, np.nan, np.inf, 0.0])


def test_a_reduction_over_no_axis_is_its_operand() -> None:
    def over_all(x: Any, axis: Any, keepdims: bool) -> Any:
        return np.sum(x, axis or None, keepdims=keepdims)

    x = RANDOM.normal(size=(2, 3))
    assert reduction(over_all)(x, axis=(), keepdims=False) is x
    assert reduction(over_all)(x, axis=(1,), keepdims=True).shape == (2, 1)


def test_a_slice_is_along_one_axis() -> None:
    x = RANDOM.normal(size=(2, 3, 4))
    np.testing.assert_array_equal(slice_axis(x, 1, 1, 3), x[:, 1:3])
