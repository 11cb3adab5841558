"""Running sums, sorting, the largest entries and gathering along any axis, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.oracle.kinks import (
    KINK_MARGIN,
    ComparisonRecorder,
    FlippedComparisons,
    MaximumRecorder,
    kink_margin,
)
from harness.oracle.oracle import TABLE
from harness.oracle.rounding import Rounded

Numpy = Callable[[Any, Any], Any]


def _segments(x: Any, i: Any) -> Any:
    total = np.zeros((5, 4))
    np.add.at(total, i, x)
    return total


# Equations of z from x [batch 2, time 3, width 4] and i [batch, time] below 5 -> the same by numpy.
CASES: dict[str, Numpy] = {
    "z = cumsum(x, axis=1)": lambda x, i: x.cumsum(1),
    "z = cumsum(x, axis=-1)": lambda x, i: x.cumsum(-1),
    "z = cumsum(x[:, ::-1], axis=1)[:, ::-1]": lambda x, i: x[:, ::-1].cumsum(1)[:, ::-1],
    "z = sort(x)": lambda x, i: np.sort(x),
    "z = sort(x, axis=0)": lambda x, i: np.sort(x, 0),
    "z = sort(x, axis=1, descending=true)": lambda x, i: -np.sort(-x, 1),
    "z = astype(argsort(x, axis=1))": lambda x, i: x.argsort(1) * 1.0,
    "z = astype(argsort(floor(2 * x), axis=-1, descending=true))": (
        lambda x, i: np.argsort(-np.floor(2 * x), -1, kind="stable") * 1.0
    ),
    "z = astype(argmax(x))": lambda x, i: x.argmax(-1) * 1.0,
    "z = astype(argmax(0 * x, axis=1) == argmax(x, axis=1))": (
        lambda x, i: (x.argmax(1) == 0) * 1.0
    ),
    "z = top_k(x, 2)": lambda x, i: -np.sort(-x)[..., :2],
    "v, k = top_k(x, 2, axis=-1)\n  z = v - take_along_axis(x, k)": lambda x, i: 0 * x[..., :2],
    "v, k = top_k(x, 2, axis=1)\n  z = v - take_along_axis(x, k, axis=1)": (
        lambda x, i: 0 * x[:, :2]
    ),
    "z = one_hot(argmax(x), width)": lambda x, i: np.eye(4)[x.argmax(-1)],
    "z = take(x, argsort(x[0, 0]), axis=2)": lambda x, i: x[:, :, x[0, 0].argsort()],
    "z = take(x, argsort(x[0], axis=0), axis=1)": lambda x, i: np.take(x, x[0].argsort(0), 1),
    "z = take_along_axis(x, argmax(x, axis=1), axis=1)": lambda x, i: x.max(1),
    "z = take(one_hot(i, vocab), i, axis=2)[:, :, 0, 0]": lambda x, i: (i == i[0, 0]) * 1.0,
    "z = astype(index(3 * x, 4))": lambda x, i: np.clip(np.floor(3 * x), 0, 3),
    "z = astype(index(sqrt(-1 - x ** 2), time))": lambda x, i: 0 * x,
    "z = one_hot(index(x[:, 0] + 2, width), width)": (
        lambda x, i: np.eye(4)[np.clip(np.floor(x[:, 0] + 2), 0, 3).astype(int)]
    ),
    "z = segment_sum(x, i)": _segments,
    "z = segment_sum(x, i[0], axis=1)": lambda x, i: np.einsum("btw,tv->bvw", x, np.eye(5)[i[0]]),
}  # fmt: skip


@pytest.mark.parametrize("equation", CASES)
def test_an_equation_gives_what_numpy_gives(equation: str) -> None:
    spec = tiny(
        [equation, "y = x + 0 * mean(z)"],
        inputs="  i: {shape: [batch, time], index: vocab}\n",
        loss="mean(squared_error(y, target)) + mean(take_along_axis(one_hot(i, vocab), i))",
    )
    program = spec.program("training")
    values = computed(program)
    given = {port.name: values[port.value] for port in (*program.inputs, *program.outputs)}
    expected = CASES[equation](given["x"], given["i"])
    assert given["z"].shape == expected.shape
    np.testing.assert_allclose(given["z"], expected, rtol=1e-13, atol=1e-13)


MOVES = [
    "y = x * cumsum(tanh(x), axis=1)",
    "y = sort(x, axis=1) * sort(sin(x), descending=true)",
    "v, k = top_k(x, 2)\n  y = x * sum(v ** 3, axis=-1, keepdims=true) * v[..., :1]",
    "y = x * take_along_axis(sin(x), argmax(x, axis=1), axis=1)[:, None]",
    "y = x * max(segment_sum(sin(x), argmax(x)), axis=0)",
    "y = x * sum(segment_sum(sin(x), index(4 * x[..., 0], 3)), axis=0)",
]


@pytest.mark.parametrize("equation", MOVES)
def test_derivatives_are_those_of_the_complex_step(equation: str) -> None:
    case = Case(tiny([equation]), {}, 2, 3)
    assert 0 < complex_step_gap(case) <= ALLOWED


def test_what_ties_sends_its_derivative_to_the_first() -> None:
    equations = ["none = x - stop_gradient(x)", "v, k = top_k(none, 1)", "y = v + 0 * x"]
    case = Case(tiny(equations), {}, 2, 3)
    found = case.gradients(case.material, "main").values["gradient.input.x"]
    assert np.all(found[..., 0] != 0)
    assert np.all(found[..., 1:] == 0)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("cumsum(x)", "axis="),
        ("sort(x, axis=3)", "3 ... 3"),
        ("top_k(concat([x[..., :1], x[..., :1]], axis=2), 3)", "3 ... 2"),
        ("sort(x, descending=2)", ""),
        ("segment_sum(x, x)", ""),
        ("segment_sum(x[:, 0], argmax(x))", "0"),
        ("take(x, argmax(x), axis=1)", ""),
        ("index(arange(time), 3)", ""),
        ("index(x, x)", ""),
        ("argsort(argmax(x))", ""),
    ],
)
def test_what_does_not_fit_is_told(equation: str, message: str, wording: Wording) -> None:
    with wording.raises(SpecError, message):
        tiny([f"y = x + 0 * mean({equation})"])


def test_results_are_counted(wording: Wording) -> None:
    with wording.raises(SpecError, "top_k ... 2 ... 3"):
        tiny(["a, b, c = top_k(x, 2)", "y = x"])
    with wording.raises(SpecError, "top_k"):
        tiny(["a, b = sort(x)", "y = x"])


def test_an_order_is_a_comparison_that_rounding_may_turn() -> None:
    x = np.array([[0.0, 1.0, 1.0 + 1e-9, 1.0 + 2e-9, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
    watching, wavering, rounded = ComparisonRecorder(), FlippedComparisons(), Rounded()
    for op in ("floor", "argsort"):
        watching.primitives[op](x)
    watching.primitives["less"](x, x[:, :1])
    assert watching.margin == 0
    assert 0 < watching.positive_margin < 1e-9
    rounded.begin(watching.decisions)
    for op, operands in (("floor", [x]), ("argsort", [-x]), ("less", [x, x])):
        found = rounded.primitives[op](*operands)
        np.testing.assert_array_equal(found, TABLE[op](*([x, x[:, :1]] if op == "less" else [x])))
    wavering.begin(1e-8)
    turned = wavering.primitives["argsort"](x)
    np.testing.assert_array_equal(turned, [[0, 2, 1, 3, 4], [4, 3, 2, 1, 0]])
    np.testing.assert_array_equal(TABLE["argsort"](x)[0], np.arange(5))
    case = Case(tiny(["y = sort(x)"]), {}, 2, 3)
    assert kink_margin(case.training, case.material) > KINK_MARGIN


def test_the_second_largest_is_seen_and_what_ties_is_not() -> None:
    rivals = MaximumRecorder()
    x = np.array([[2.0, 2.0, 1.0], [0.0, 1.5, 1.5 + 1e-6]])
    for axis, shape in (((1,), (2,)), ((0, 1), ())):
        found = rivals.primitives["max"](x, axis=axis, keepdims=False)
        assert found.shape == shape
        np.testing.assert_array_equal(found, x.max(axis))
    assert rivals.gap == pytest.approx(5e-7)
    rivals.forget()
    rivals.primitives["max"](x[:1], axis=(1,), keepdims=True)
    assert rivals.gap == 0.5
