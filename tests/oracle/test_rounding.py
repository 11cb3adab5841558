"""Results off by a unit in their last place: which are, and which stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from harness.oracle.oracle import TABLE
from harness.oracle.rounding import Rounded


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_power_of_the_step_is_off_by_as_much_as_a_rounded_base_makes_of_it(dtype: str) -> None:
    """Some hold 0.999 in float32 and others in float64, and ``1 - 0.999 ** t`` magnifies that."""
    beta = np.array(0.999, dtype)
    for step in (1, 10, 100):
        true = TABLE["power"](beta, np.array(step, dtype))
        found = Rounded().primitives["power"](beta, np.array(step, dtype))
        assert found.dtype == dtype
        off = np.abs(found - true) / np.spacing(true)
        assert step - 1 <= off <= 2 * step + 1
        many = Rounded().primitives["power"](beta[None], np.array(step, dtype))
        assert np.all(np.abs(many - true) / np.spacing(true) <= 2)


def test_what_is_made_of_literals_stays() -> None:
    """Exponents, and what is the same whoever computes it."""
    rounded = Rounded()
    for op, operands, true in (
        ("add", (np.array(0.1), np.array(0.2)), 0.1 + 0.2),
        ("divide", (np.array(1.0), np.array(3.0)), 1 / 3),
        ("power", (np.array(2.0), np.array(3.0)), 8.0),
        ("power", (np.array(0.0), np.array(0.5)), 0.0),
        ("exp", (np.array(0.0),), 1.0),
    ):
        assert rounded.primitives[op](*operands) == true


def test_a_function_is_off_where_it_is_no_whole_number() -> None:
    step, rounded = np.array(10.3), Rounded()
    for op in ("exp", "log", "tanh"):
        assert rounded.primitives[op](step) != TABLE[op](step)
