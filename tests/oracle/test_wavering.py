"""Comparisons that rounding may turn fall the other way."""

from __future__ import annotations

import numpy as np
import pytest

from harness.oracle.kinks import ORDERED, FlippedComparisons
from harness.oracle.oracle import TABLE
from harness.oracle.yardstick import NEXT


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("band", [0.2, 1e6])
def test_a_band_may_be_wider_than_a_dtype_is(dtype: str, band: float) -> None:
    """The typical noise of a model that overflows is; two of the operands are equal, and stay."""
    a, b = np.array([1.0, 2.0, 7.0], dtype), np.array([1.0, 2.1, 9.0], dtype)
    wavering = FlippedComparisons()
    wavering.begin(band)
    for op in ORDERED:
        turned = wavering.primitives[op](a, b) != TABLE[op](a, b)
        assert turned.tolist() == [False, True, band > 1]
    order = wavering.primitives["argsort"](b[None])
    assert order.tolist() == [[1, 0, 2]]


def test_what_is_beside_an_infinite_operand_is_near() -> None:
    a, b = np.array([1.0, 2.0]), np.array([np.inf, 2.5])
    wavering = FlippedComparisons()
    wavering.begin(0.2)
    turned = wavering.primitives["less"](a, b) != TABLE["less"](a, b)
    assert turned.tolist() == [True, True]


def test_all_but_the_nearest() -> None:
    a, b = np.array([1.0, 2.0, 8.0, 4.0]), np.array([1.0, 2.1, 8.8, 4.0])
    wavering = FlippedComparisons()
    wavering.begin(0.2)
    wavering.primitives["less"](a, b)
    assert (wavering.nearest, wavering.furthest) == pytest.approx((0.1 / 8.8, 0.8 / 8.8))
    wavering.begin(0.2, beyond=NEXT * wavering.nearest)
    turned = wavering.primitives["less"](a, b) != TABLE["less"](a, b)
    assert turned.tolist() == [False, False, True, False]


def test_an_infinite_entry_never_trades_places_with_a_finite_one() -> None:
    """The padding of a maximum is infinite; entries that rounding may exchange are exchanged."""
    wavering = FlippedComparisons()
    wavering.begin(1e-3)
    x = np.array([[1.0, 2.0, 2.001, np.inf, np.inf], [-np.inf, -3.0, 1.0, 5.0, np.inf]])
    assert wavering.primitives["argsort"](x).tolist() == [[0, 2, 1, 3, 4], [0, 1, 2, 3, 4]]
