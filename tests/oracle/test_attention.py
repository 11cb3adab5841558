"""What fused attention rounds otherwise is off where rounding is at random, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.arrays import Array
from harness.oracle.oracle import TABLE
from harness.oracle.rounding import WATCHED, Attention

EPS = np.finfo("float64").eps


@pytest.fixture
def ops() -> dict[str, Callable[..., Array]]:
    """The oracle's operations, watched, and none of them off by itself."""
    attention = Attention(np.ones)
    return {op: attention.wrap(op, TABLE[op]) for op in WATCHED}


def softmax(ops: dict[str, Any], x: Array) -> Array:
    e = ops["exp"](ops["subtract"](x, ops["max"](x, axis=(-1,), keepdims=True)))
    return np.asarray(ops["divide"](e, ops["sum"](e, axis=(-1,), keepdims=True)))


@pytest.mark.parametrize("shift", [0.0, 30.0, 1000.0])
def test_a_row_is_off_by_a_last_place_of_its_shift(ops: dict[str, Any], shift: float) -> None:
    found = softmax(ops, np.array([[shift, shift - 700.0]]))
    np.testing.assert_allclose(1 - found.sum(), EPS * shift / 2, rtol=0.01, atol=EPS)


def test_a_mask_is_no_shift(ops: dict[str, Any]) -> None:
    """All of a row that is masked is alike: its softmax is even."""
    np.testing.assert_array_equal(softmax(ops, np.full((1, 4), -1e30)), 0.25)


def test_a_weighted_sum_is_off_by_the_size_of_the_terms_behind_it(ops: dict[str, Any]) -> None:
    weights = softmax(ops, np.array([[30.0, -30.0]]))
    dy, values = np.array([[1000.0, -1000.0]]), np.array([[1.0, 1.0], [1.0, 1.001]])
    product = ops["matmul"](dy, values)
    ops["matmul"](weights.T, dy)  # made beside it, of the same gradient
    scaled = ops["negative"](ops["multiply"](ops["divide"](product, np.full((1, 1), 2.0)), weights))
    true = np.sum(scaled)
    found = ops["sum"](scaled, axis=(-1,), keepdims=True)
    assert abs(true) < 1e-9  # 1000 - 1000
    np.testing.assert_allclose(found - true, 2000 / 2 * EPS, rtol=0.01)


def test_other_sums_stay(ops: dict[str, Any]) -> None:
    x = np.array([[1.0, 2.0]])
    ops["max"](x, axis=(-1,), keepdims=True)
    product = ops["matmul"](x, np.eye(2))
    assert ops["sum"](ops["multiply"](product, x), axis=(-1,), keepdims=True) == 5.0
    assert ops["sum"](product, axis=(-1,), keepdims=True) == 3.0
