"""Results off by a unit in their last place: which are, and which stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from harness.checking.checks.extremes import index_material
from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.oracle.kinks import ComparisonRecorder
from harness.oracle.oracle import TABLE
from harness.oracle.rounding import Narrowed, Rounded, has_equal_rows
from harness.oracle.tolerance import K
from harness.runtime.precision import rounded_to


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


@pytest.mark.parametrize(("dtype", "unit"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_products_are_off_by_a_unit_of_the_narrow_dtype_they_are_in(
    dtype: str, unit: float
) -> None:
    a, b = np.float32(1.5) * np.eye(3, dtype=np.float32), np.ones((3, 4), np.float32)
    true = TABLE["matmul"](a, b)
    found = Rounded(dtype).primitives["matmul"](a, b)
    assert set(np.unique(np.abs(found / true - 1))) == {np.float32(unit)}
    assert np.max(np.abs(Rounded("float32").primitives["matmul"](a, b) / true - 1)) < 1e-6
    # All else is kept in float32.
    more = Rounded(dtype).primitives["multiply"](a, a)
    assert np.max(np.abs(more - a * a)) <= 2 * np.finfo(np.float32).eps * 2.25


def test_mixed_precision_rounds_activations_and_sums_over_examples() -> None:
    x = np.linspace(-3.0, 3.0, 40, dtype=np.float32).reshape(10, 4)
    table = Narrowed("bfloat16").primitives
    tanh, total = TABLE["tanh"](x), TABLE["sum"](x + 1, axis=(0,), keepdims=False)
    assert np.array_equal(table["tanh"](x), rounded_to(tanh, "bfloat16"))
    assert not np.array_equal(table["tanh"](x), tanh)
    assert np.array_equal(
        table["sum"](x + 1, axis=(0,), keepdims=False), rounded_to(total, "bfloat16")
    )
    for axis, keepdims in (((0, 1), False), ((1,), False), ((0,), True)):
        kept = table["sum"](x, axis=axis, keepdims=keepdims)
        assert np.array_equal(kept, TABLE["sum"](x, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_numbers_are_off_alike_and_others_by_a_coin(dtype: str) -> None:
    """Whoever computes an example twice makes the same error twice."""
    rounded, rows = Rounded(dtype), np.arange(1.0, 301.0).astype(dtype) / 7
    for op in ("exp", "log"):
        off = rounded.primitives[op](np.stack([rows / 99] * 5)) / TABLE[op](rows / 99)
        assert np.all(off == off[0])
        assert 0.4 < np.mean(off[0] > 1) < 0.6
    once, again = (rounded.primitives["multiply"](rows, rows) for _ in range(2))
    assert 0.3 < np.mean(once == again) < 0.7


def test_examples_that_repeat_are_known() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert not has_equal_rows({"output.y": rows})
    assert has_equal_rows({"output.y": rows[:1]})
    assert has_equal_rows({"output.y": np.repeat(rows[:1], 5, axis=0)})
    assert not has_equal_rows({"gradient.W": np.zeros((3, 2)), "output.y": rows})


@pytest.mark.parametrize("batch", [1, 33])
def test_what_is_left_of_a_sure_answer_has_few_digits_however_often_it_repeats(batch: int) -> None:
    """1 less a chance of nearly 1, of which all libraries have the last place otherwise."""
    spec, least = load_spec("lesson6/first_rnn"), 1e-4
    case = make_case(spec, Request(sizes={"batch": batch}, dtypes=("float64",)), own=False)
    expected = case.gradients(index_material(case, 1), "repeated")
    loss = float(expected.values["loss"])
    assert loss < least
    noise = expected.noise("float64")["gradient.embed_1.table"]
    assert K * noise > 8 * np.finfo(np.float64).eps / loss


def test_nobody_rounds_what_counts() -> None:
    """Whole numbers: else a negative base has an exponent that makes it NaN, and the square of 1
    taken from 1 a root that does."""
    primitives, count = Rounded().primitives, np.arange(-3.0, 4.0)
    one, two = np.array(1.0), np.array(2.0)
    later = primitives["add"](count, one)
    np.testing.assert_array_equal(later, count + 1)
    np.testing.assert_array_equal(primitives["power"](count, two), count**2)
    np.testing.assert_array_equal(primitives["cumulative_sum"](count), np.cumsum(count))
    signs = primitives["power"](np.array(-1.0), later)
    assert np.max(np.abs(signs - (-1.0) ** later)) <= 2 * np.finfo(float).eps
    for op, operands in (
        ("add", (count, np.array(0.5))),
        ("multiply", (count, np.array(0.1))),
        ("divide", (count, np.array(7.0))),
        ("add", (count + 2.0**24, one)),
        ("power", (np.array(7.0), count)),
    ):
        assert np.any(primitives[op](*operands) != TABLE[op](*operands))


def test_a_step_falls_where_the_plain_run_has_it() -> None:
    """floor of a whole number that was computed is that number, however it is rounded."""
    plain, rounded = ComparisonRecorder(), Rounded()
    halves = (np.arange(20.0) * 0.7, np.array(0.7))
    told = plain.primitives["floor"](plain.primitives["divide"](*halves))
    rounded.begin(plain.decisions)
    off = rounded.primitives["divide"](*halves)
    assert np.any(np.floor(off) != told)
    np.testing.assert_array_equal(rounded.primitives["floor"](off), told)
