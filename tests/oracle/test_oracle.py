"""Each primitive of the oracle against another formula, and its complex and extreme behaviour."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from golden.tiny import evaluate, tiny
from window_cases import WINDOWS, one_by_one

from harness.oracle import oracle
from harness.program import primitives
from harness.program.dims import Dim
from harness.program.ir import Block, Node

RNG = np.random.default_rng(3)
A = RNG.normal(size=(3, 4))
B = RNG.normal(size=(3, 4))
POSITIVE = RNG.uniform(0.1, 3.0, (3, 4))
CUBE = RNG.normal(size=(2, 3, 4))
INDEX = np.array([[2, 0, 2], [1, 1, 0]])


def run(op: str, *inputs: Any, dtype: str = "float64", **attributes: Any) -> Any:
    """One primitive through the walk, as every program runs it."""
    node = Node(op, tuple(range(len(inputs))), (99,), attributes)
    return oracle.run([node], dict(enumerate(inputs)), {"rows": 3}, dtype)[99]


def each(function: Callable[..., Any], *arrays: Any) -> Any:
    """Entry by entry in plain Python."""
    flat = zip(*(a.ravel().tolist() for a in arrays), strict=True)
    return np.array([function(*entries) for entries in flat]).reshape(arrays[0].shape)


# op -> inputs, attributes, what another way of computing gives.
CASES: Mapping[str, tuple[tuple[Any, ...], Mapping[str, Any], Any]] = {
    "exp": ((A,), {}, each(math.exp, A)),
    "log": ((POSITIVE,), {}, each(math.log, POSITIVE)),
    "tanh": ((A,), {}, each(math.tanh, A)),
    "sqrt": ((POSITIVE,), {}, each(math.sqrt, POSITIVE)),
    "negative": ((A,), {}, each(lambda a: -a, A)),
    "add": ((A, B[0]), {}, each(lambda a, b: a + b, A, np.tile(B[0], (3, 1)))),
    "subtract": ((A, B), {}, each(lambda a, b: a - b, A, B)),
    "multiply": ((A, B[:, :1]), {}, each(lambda a, b: a * b, A, np.repeat(B[:, :1], 4, 1))),
    "divide": ((A, B), {}, each(lambda a, b: a / b, A, B)),
    "power": ((POSITIVE, B), {}, each(math.pow, POSITIVE, B)),
    "less": ((A, A.T.reshape(3, 4)), {}, each(lambda a, b: a < b, A, A.T.reshape(3, 4))),
    "less_equal": ((A, A), {}, np.ones((3, 4), bool)),
    "equal": ((A, np.where(A > 0, A, 0)), {}, A > 0),
    "where": ((A > 0, A, B), {}, each(lambda a, b: a if a > 0 else b, A, B)),
    "astype": ((A > 0,), {}, each(lambda a: 1.0 if a > 0 else 0.0, A)),
    "erf": ((A,), {}, each(math.erf, A)),
    "sin": ((A,), {}, each(math.sin, A)),
    "cos": ((A,), {}, each(math.cos, A)),
    "floor": ((3 * A,), {}, each(lambda a: float(math.floor(a)), 3 * A)),
    "cumulative_sum": ((A,), {}, np.array([[sum(r[: n + 1]) for n in range(4)] for r in A])),
    "argsort": (
        (np.array([[2.0, np.nan, 1.0, 2.0, -0.0, 0.0]]),),
        {},
        np.array([[4, 5, 2, 0, 3, 1]]),
    ),
    "arange": ((), {"stop": Dim.of("rows")}, np.array([0, 1, 2])),
    "reshape": (
        (CUBE,),
        {"shape": (Dim.of(CUBE.shape[0] * CUBE.shape[1]), Dim.of(CUBE.shape[2]))},
        np.concatenate([*CUBE]),
    ),
    **{op: one_by_one(op, *inputs, **attributes) for op, inputs, attributes in WINDOWS[15:18]},
    "permute_dims": ((CUBE,), {"axes": (1, 2, 0)}, np.einsum("abc->bca", CUBE)),
    "broadcast_to": ((A[0],), {"shape": (Dim.of("rows"), Dim(4))}, np.outer(np.ones(3), A[0])),
    "expand_dims": ((A,), {"axis": 1}, A.reshape(3, 1, 4)),
    "squeeze": ((A[:1],), {"axis": 0}, A.reshape(12)[:4]),
    "concat": ((A, B[:, :2]), {"axis": 1}, np.hstack([A, B[:, :2]])),
    "slice": ((A,), {"axis": 1, "start": Dim(1), "stop": Dim.of("rows")}, A.T[1:3].T),
    "flip": ((CUBE,), {"axis": 1}, np.einsum("ij,ajc->aic", np.eye(3)[[2, 1, 0]], CUBE)),
    "take": ((A, INDEX), {}, np.einsum("bij,jc->bic", np.eye(3)[INDEX], A)),
    "take_along_axis": (
        (A, INDEX.T[:, :2]),
        {},
        np.array([[A[r, INDEX.T[r, k]] for k in range(2)] for r in range(3)]),
    ),
    "one_hot": ((INDEX,), {"classes": Dim.of("rows")}, np.eye(3)[INDEX]),
    "segment_sum": (
        (CUBE[:, :, :3], INDEX),
        {"rows": Dim.of("rows")},
        np.einsum("bij,bic->jc", np.eye(3)[INDEX], CUBE[:, :, :3]),
    ),
    "sum": ((CUBE,), {"axis": (0, 2), "keepdims": True}, np.einsum("abc->b", CUBE)[None, :, None]),
    "max": ((CUBE,), {"axis": (1,), "keepdims": False}, np.sort(CUBE, axis=1)[:, -1]),
    "matmul": ((CUBE, B.T), {}, np.einsum("abc,cd->abd", CUBE, B.T)),
    "tensordot": ((CUBE, CUBE), {"axes": ((0, 1), (0, 1))}, np.einsum("abc,abd->cd", CUBE, CUBE)),
    "stop_gradient": ((A,), {}, A.copy()),
}  # fmt: skip


def test_every_primitive_has_a_case() -> None:
    assert set(CASES) == set(oracle.TABLE) == set(primitives.EVERY)


@pytest.mark.parametrize("case", range(len(WINDOWS)))
def test_windows_have_the_entries_that_they_are_defined_to_have(case: int) -> None:
    op, inputs, given = WINDOWS[case]
    _, attributes, expected = one_by_one(op, *inputs, **given)
    np.testing.assert_allclose(run(op, *inputs, **attributes), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("op", CASES)
def test_a_primitive_agrees_with_another_formula(op: str) -> None:
    inputs, attributes, expected = CASES[op]
    copies = [x.copy() for x in inputs]
    found = run(op, *inputs, **attributes)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)
    for given, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(given, copy)


def test_a_constant_and_an_extent() -> None:
    assert run("constant", value=0.1) == 0.1
    assert run("extent", dims=(Dim.of("rows"), Dim(4))) == 12
    assert run("constant", value=0.1, dtype="float32").dtype == np.float32


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_a_loop(reverse: bool) -> None:
    """Carried: half the last value and the new row; stacked: the carried value, in time's order."""
    nodes = (
        Node("constant", (), (10,), {"value": 0.5}),
        Node("multiply", (2, 10), (11,)),
        Node("add", (11, 3), (12,)),
    )
    body = Block((2, 3), nodes, (12, 12))
    scan = Node("scan", (0, 1), (20, 21), {"carries": 1, "reverse": reverse}, body)
    found = oracle.run([scan], {0: np.zeros(4), 1: A}, {})
    carried, rows = np.zeros(4), []
    for row in A[::-1] if reverse else A:
        carried = carried / 2 + row
        rows.append(carried)
    np.testing.assert_allclose(found[20], carried, rtol=1e-15)
    np.testing.assert_allclose(found[21], rows[::-1] if reverse else rows, rtol=1e-15)


# --- Orders of summation ----------------------------------------------------------------------

REORDERED = [(order, op) for order, table in oracle.ORDERS.items() for op in table]


@pytest.mark.parametrize(("order", "op"), REORDERED)
def test_an_order_of_summation_changes_the_rounding_only(order: str, op: str) -> None:
    inputs, attributes, expected = CASES[op]
    found = oracle.ORDERS[order][op](*inputs, **attributes)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    long = RNG.normal(size=(8, 501)).astype(np.float32)
    arguments = {"sum": (long, (1,), False), "matmul": (long, long.T)}
    arguments |= {"exp": (long,), "log": (abs(long),), "tanh": (long,)}
    arguments |= dict.fromkeys(("erf", "sin", "cos", "cumulative_sum"), (long,))
    arguments["tensordot"] = (long, long, ((1,), (1,)))
    other = oracle.ORDERS[order][op](*arguments[op])
    plain = oracle.TABLE[op](*arguments[op])
    assert other.dtype == plain.dtype
    assert (other != plain).any()


# --- Complex numbers --------------------------------------------------------------------------

SMOOTH = (
    *("exp", "log", "tanh", "sqrt", "power", "divide", "multiply"),
    *("erf", "sin", "cos"),
)


@pytest.mark.parametrize("op", SMOOTH)
def test_the_imaginary_part_carries_the_derivative(op: str) -> None:
    inputs, _, _ = CASES[op]
    first = np.abs(inputs[0]) + 0.5
    found = run(op, first + 1e-30j, *inputs[1:], dtype="complex128")
    h = 1e-6
    ends = [run(op, first + s * h, *inputs[1:]) for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * h)
    np.testing.assert_allclose(found.imag / 1e-30, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("op", ["less", "less_equal", "equal"])
def test_comparisons_look_at_real_parts(op: str) -> None:
    a = np.array([1.0, 1.0, 2.0])
    b = np.array([1.0, 2.0, 1.0])
    plain = run(op, a, b)
    for left, right in ((a + 5j, b), (a, b - 5j), (a + 1j, b + 2j)):
        np.testing.assert_array_equal(run(op, left, right, dtype="complex128"), plain)


def test_what_is_stopped_loses_its_imaginary_part() -> None:
    found = run("stop_gradient", np.array([1 + 2j]), dtype="complex128")
    assert not np.iscomplexobj(found)
    assert found.tolist() == [1.0]


def test_the_maximum_is_that_of_the_real_parts() -> None:
    found = run("max", np.array([[1 + 9j, 2 - 9j]]), axis=(1,), keepdims=True, dtype="complex128")
    assert found.tolist() == [[2 - 9j]]


def test_entries_that_tie_for_the_maximum_share_its_imaginary_part() -> None:
    """As they share its derivative, so that the complex step proves that rule."""
    given = np.array([[1 + 2j, 1 + 4j, 0 + 9j]])
    found = run("max", given, axis=(1,), keepdims=False, dtype="complex128")
    assert found.tolist() == [1 + 3j]


@pytest.mark.parametrize("order", ["reversed", "nudged"])
def test_terms_that_are_alike_are_rounded_to_the_same_side(order: str) -> None:
    """As one accumulator does, where numpy's own order may hide it."""
    ones, tenths = np.ones((33, 70, 1), np.float32), np.full((33, 70, 1), 0.1, np.float32)
    found = oracle.ORDERS[order]["tensordot"](ones, tenths, ((0, 1), (0, 1)))
    exact = tenths.astype(np.float64).sum()
    assert abs(float(found[0, 0]) / exact - 1) > 100 * 2.0**-24


# --- Extremes ---------------------------------------------------------------------------------


def apply(name: str, *values: float) -> tuple[Any, Any]:
    """A function of ``[batch, time]`` at some numbers: values and slopes."""
    case = tiny("function", name)
    x = np.resize(np.asarray(values, np.float64), (3, 5))
    found = evaluate(case, {"x": x}, {"y": np.ones((3, 5))})
    return found["y"].ravel()[: len(values)], found["gradient.x"].ravel()[: len(values)]


ELEMENTWISE = ("relu", "sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth", "linear")


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_in_gives_nan_out(name: str) -> None:
    values, _ = apply(name, np.nan, 1.0)
    assert np.isnan(values).tolist() == [True, False]


def test_a_saturated_sigmoid_is_finite() -> None:
    values, slopes = apply("sigmoid", -1000.0, 0.0, 1000.0)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert slopes.tolist() == [0.0, 0.25, 0.0]


def rows(name: str, *logits: float) -> tuple[Any, Any]:
    """A softmax of one row, the rest of the classes far below; and its Jacobian's first row."""
    case = tiny("function", name)
    x = np.full((3, 5, 7), -5000.0)
    x[0, 0, : len(logits)] = logits
    cotangent = np.zeros((3, 5, 7))
    cotangent[0, 0, 0] = 1
    found = evaluate(case, {"x": x}, {"y": cotangent})
    return found["y"][0, 0, : len(logits)], found["gradient.x"][0, 0, : len(logits)]


def test_a_softmax_of_large_logits_does_not_overflow() -> None:
    values, slopes = rows("softmax", 800.0, 900.0)
    assert values[0] == pytest.approx(math.exp(-100), rel=1e-13)
    assert values[1] == 1.0
    assert np.isfinite(slopes).all()
    even, _ = rows("softmax", 800.0, 800.0)
    assert even.tolist() == [0.5, 0.5]


def test_log_softmax_keeps_a_gap_of_1000() -> None:
    values, slopes = rows("log_softmax", -1000.0, 0.0)
    assert values.tolist() == [-1000.0, 0.0]
    assert slopes.tolist() == [1.0, -1.0]


def test_nan_spoils_its_own_row_only() -> None:
    case = tiny("function", "softmax")
    x = np.zeros((3, 5, 7))
    x[1, 2, 3] = np.nan
    found = evaluate(case, {"x": x}, {})["y"]
    assert np.isnan(found[1, 2]).all()
    assert np.isnan(found).sum() == 7


def test_the_oracle_imports_no_framework() -> None:
    tree = ast.parse(inspect.getsource(oracle))
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    outside = {n.split(".")[0] for n in names if n} - {
        "__future__",
        "collections",
        "math",
        "typing",
    }
    assert outside == {"numpy", "harness"}
