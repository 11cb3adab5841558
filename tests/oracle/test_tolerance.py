"""Errors, scales and what is allowed: honest noise passes, small faults do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.oracle import ORDERS, Oracle
from harness.oracle.tolerance import (
    FLOOR,
    PRECISION,
    Deviation,
    K,
    compare,
    deviation,
    relative_error,
    scales,
    worst,
)
from harness.oracle.yardstick import Expected
from harness.runtime.session import Session

ONES = np.ones((2, 3))


def judged(found: Any, expected: Any = ONES, dtype: str = "float32", noise: float = 0.0) -> Any:
    return deviation("y", found, expected, 1.0, noise, dtype)


# --- Scales -----------------------------------------------------------------------------------


def test_scale_is_the_largest_magnitude_of_what_is_finite() -> None:
    found = scales({"a": np.array([-3.0, 2.0]), "b": np.array([np.nan, np.inf, 0.5])})
    assert found == {"a": 3.0, "b": 0.5}


def test_scale_of_what_is_less_than_a_millionth_of_its_kind_is_a_thousandth_of_it() -> None:
    small = np.array([1e-30])
    found = scales({"gradient.W": np.array([4.0]), "gradient.b": small, "output.y": small})
    assert found["gradient.b"] == 4.0 * 2.0**-10
    assert scales({"a.W": np.array([4.0]), "a.b": np.array([1e-5])})["a.b"] == 1e-5
    assert found["output.y"] == 1e-30


def test_slots_and_how_far_a_parameter_moved_are_kinds_of_their_own() -> None:
    """A gradient of thousands has squares of ten millions, and a step of a thousandth."""
    far = "step 133: out.W"
    sizes = {f"{far} moved": 1e-3, f"{far} m": 4e3, f"{far} v": 2e7}
    found = scales({name: np.array([size]) for name, size in sizes.items()})
    assert found == sizes
    moved = {f"{far} moved": np.array([1.0]), "step 133: out.b moved": np.array([1e-12])}
    assert scales(moved)["step 133: out.b moved"] == 2.0**-10


def test_what_is_zero_but_for_rounding_may_be_many_roundings_of_the_largest_of_its_kind() -> None:
    """As the gradient of a normalisation's factor, where all that is normalised is the same."""
    values = {"gradient.a": np.zeros(2), "gradient.b": np.array([0.1]), "state.h": np.zeros(2)}
    expected = Expected(values, lambda dtype: dict.fromkeys(values, 0.0))
    for dtype, unit in (("float64", 2.0**-53), ("float32", 2.0**-24)):
        exact = {name: array.astype(dtype) for name, array in values.items()}
        few, many = (np.full(2, count * unit * 0.1, dtype) for count in (900, 20000))
        near, far = (
            expected.deviations({**exact, "gradient.a": found}, dtype) for found in (few, many)
        )
        assert [d.agrees for d in near] == [True, True, True]
        assert [d.name for d in far if not d.agrees or d.void] == ["gradient.a"]
        assert not any(d.void for d in (*near, *far))
        noise = expected.noise(dtype)
        assert noise["gradient.b"] == noise["state.h"] == 0.0


@pytest.mark.parametrize("array", [np.zeros(3), np.full(3, np.nan), np.zeros((0, 3))])
def test_scale_is_1_where_nothing_has_a_size(array: Any) -> None:
    assert scales({"y": array}) == {"y": 1.0}


# --- Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, -np.inf], [np.inf, -np.inf], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([0.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.inf, 1.0], [np.nan, 1.0], np.inf),
        ([1e308, 1.0], [-1e308, 1.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_relative_error(found: list[float], expected: list[float], error: float) -> None:
    assert relative_error(np.array(found), np.array(expected), 2.0) == error


def test_error_is_over_the_scale_of_the_whole_tensor() -> None:
    found = compare(
        {"y": np.array([100.0, 1e-3 + 1e-5])}, {"y": np.array([100.0, 1e-3])}, {}, "float64"
    )
    assert found[0].error == pytest.approx(1e-7)


# --- What is allowed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "dtype", "allowed"),
    [
        (0.0, "float32", K * FLOOR),
        (1e-6, "float32", K * 1e-6),
        (0.0, "float64", K * 2.0**-54),
        (1e-6, "float64", K * 1e-6),
    ],
)
def test_tolerance_is_k_times_the_noise_or_the_floor(
    noise: float, dtype: str, allowed: float
) -> None:
    at_most = judged(ONES.astype(dtype), noise=noise, dtype=dtype)
    assert at_most.tolerance == allowed
    assert at_most.agrees
    for share, agrees in ((1.0, True), (1.01, False)):
        assert Deviation("y", allowed * share, allowed / K, allowed).agrees is agrees


def test_four_units_in_the_last_place_pass_and_five_do_not() -> None:
    """The floor, in float32 at magnitude 1, where the yardstick itself happens to be exact."""
    one = ONES.astype(np.float32)
    for units, agrees in ((4, True), (5, False)):
        found = one.copy()
        found[1, 2] += units * np.float32(2.0**-23)
        assert judged(found).agrees is agrees


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "nothing was returned"),
        ([[1.0] * 3] * 2, "expected an array, found list"),
        ("array", "expected an array, found str"),
        (ONES.astype(np.float32)[:1], r"expected shape \[2, 3\], found \[1, 3\]"),
        (ONES.astype(np.float32).T, r"expected shape \[2, 3\], found \[3, 2\]"),
        (np.float32(1.0), r"expected shape \[2, 3\], found \[\]"),
        (ONES, "expected dtype float32, found float64"),
        (ONES.astype(np.int64), "expected dtype float32, found int64"),
    ],
)
def test_what_is_no_such_array_differs_and_says_why(found: Any, reason: str) -> None:
    wrong = judged(found)
    assert not wrong.agrees
    assert wrong.error == np.inf
    with pytest.raises(AssertionError, match=f"y: {reason}"):
        raise AssertionError(str(wrong))


def test_a_nan_is_never_agreement() -> None:
    assert not judged(np.full((2, 3), np.nan, np.float32)).agrees
    assert not Deviation("y", float("nan"), 1e-8, 8e-8).agrees


def test_missing_and_unexpected_tensors_differ() -> None:
    one = ONES.astype(np.float32)
    found = compare({"a": one, "surprise": one}, {"a": ONES, "b": ONES}, {}, "float32")
    assert {d.name: (d.agrees, d.reason) for d in found} == {
        "a": (True, ""),
        "b": (False, "nothing was returned"),
        "surprise": (False, "was not expected"),
    }


def test_worst_is_what_is_furthest_beyond_what_is_allowed() -> None:
    near = Deviation("near", 7e-8, 1e-8, 8e-8)
    far = Deviation("far", 9e-8, 1e-8, 8e-8)
    wide = Deviation("wide", 1e-3, 1e-3, 8e-3)
    shape = Deviation("shape", 0.0, 1.0, 8.0, "expected shape [1], found [2]")
    assert worst([wide, near]).name == "near"
    assert worst([near, far, wide]).name == "far"
    assert worst([near, shape]).name == "shape"
    assert worst([far, Deviation("nan", float("nan"), 1e-8, 8e-8)]).name == "nan"
    assert "9.00e-08 of its largest entry, 9 times the yardstick" in str(far)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_nothing_but_rounding_tells_only_where_it_is_wrong(dtype: str) -> None:
    noise = {n: size * PRECISION[dtype] for n, size in (("near", 1e-7), ("rounding", 0.01))}

    def judged(**errors: float) -> str:
        """The worst tensor, where each is off by so many times its noise."""
        found = {n: ONES.astype(dtype) for n in errors}
        expected = {n: ONES + times * noise[n] for n, times in errors.items()}
        return worst(compare(found, expected, noise, dtype)).name

    assert judged(near=1.0, rounding=2.0) == "near"
    assert judged(rounding=2.0) == "rounding"
    assert judged(near=1.0, rounding=20.0) == "rounding"


# --- On a model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)


def deviations(
    case: Case, parameters: Mapping[str, Any], dtype: str, order: str = "plain"
) -> list[Deviation]:
    """Results and gradients of the oracle, with these parameters, against the case's."""
    session = Session(Oracle(order), case.training, case.inference, path="equations", dtype=dtype)
    session.load(parameters, case.material.statistics)
    m = case.material
    results, gradients = session.gradients("training", m.inputs, m.state, m.targets)
    found = results | {f"gradient.{n}": g for n, g in gradients.items()}
    expected = case.gradients(m, "main")
    return compare(found, expected.values, expected.noise(dtype), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ORDERS)
def test_another_order_of_summation_agrees(case: Case, dtype: str, order: str) -> None:
    found = deviations(case, case.material.parameters, dtype, order)
    assert len(found) > 20
    assert [str(d) for d in found if not d.agrees] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lstm.b_i", "lstm.b_f", "lstm.b_o", "out.b", "norm.beta"])
def test_a_bias_off_by_a_thousandth_is_far_beyond(case: Case, dtype: str, name: str) -> None:
    parameters = dict(case.material.parameters)
    parameters[name] = parameters[name] * 1.001
    furthest = worst(deviations(case, parameters, dtype))
    assert furthest.error > 5 * furthest.tolerance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_swapped_gates_are_far_beyond(case: Case, dtype: str) -> None:
    parameters = dict(case.material.parameters)
    for stem in "WUb":
        one, other = f"lstm.{stem}_i", f"lstm.{stem}_f"
        parameters[one], parameters[other] = parameters[other], parameters[one]
    furthest = worst(deviations(case, parameters, dtype))
    assert furthest.error > 10_000 * furthest.tolerance
