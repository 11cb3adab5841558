"""Products in bfloat16 and float16, all else in float32; the scale of a loss in float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.backends.numpy.backend import Numpy
from harness.backends.numpy.fused import FUSED
from harness.backends.numpy.primitives import PRIMITIVES
from harness.language.initial_values import initial_parameters
from harness.language.model import load_spec
from harness.program.updates import FIRST, GOOD, GROWS, SCALE
from harness.runtime.precision import rounded_to, with_products_in
from harness.runtime.session import Session
from harness.runtime.training_steps import ListedBatches, TrainingSteps
from harness.runtime.updates import initial_scaling

SIZES = {"vocab": 20, "factors": 8, "hidden": 32}
RATE = 0.01
# Bits of a significand, and the least exponent of a normal number.
FORMS = {"bfloat16": (8, -126), "float16": (11, -14)}


def batches(count: int) -> list[dict[str, Any]]:
    """Sixteen windows each of a text whose next character is one of three."""
    random = np.random.default_rng(0)
    text = np.cumsum(random.integers(0, 3, 2000)) % 20
    starts = random.integers(0, len(text) - 9, (count, 16))
    windows = text[starts[..., None] + np.arange(9)]
    return [{"inputs": {"chars": w[:, :8]}, "targets": {"target": w[:, 1:]}} for w in windows]


def opened(dtype: str) -> Session:
    spec = load_spec("lesson6/sequence_rnn")
    programs = [spec.program(phase, **SIZES) for phase in ("training", "inference")]
    session = Session(Numpy(), *programs, path="derived", dtype=dtype, rule=spec.update)
    session.load(initial_parameters(programs[0], 0), {})
    return session


def trained(session: Session, given: list[dict[str, Any]]) -> float:
    """The mean loss of the last fifty steps, made as a training makes them."""
    steps = TrainingSteps(session, ListedBatches(given, session.dtype))
    steps.begin({})
    numbers = np.arange(len(given))[:, None]
    steps.run(RATE, numbers[:-50])
    total = steps.run(RATE, numbers[-50:])
    steps.store()
    return total / 50


@pytest.mark.parametrize("dtype", FORMS)
def test_numbers_are_rounded_to_the_nearest_and_ties_to_even(dtype: str) -> None:
    bits, least = FORMS[dtype]
    random = np.random.default_rng(0)
    x = (random.normal(size=10_000) * np.exp2(random.integers(-30, 10, 10_000))).astype("f4")
    x[:1000] = (2 * random.integers(2 ** (bits - 1), 2**bits, 1000) + 1) / 2  # half-way
    exponent = np.maximum(np.floor(np.log2(abs(x.astype("f8")))), least)
    unit = np.exp2(exponent - bits + 1)
    wanted = np.rint(x / unit) * unit
    np.testing.assert_array_equal(rounded_to(x, dtype), wanted)
    edges = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45], np.float32)
    found = rounded_to(edges, dtype)
    np.testing.assert_array_equal(found[:5], edges[:5])
    assert np.signbit(found[1])
    assert np.isinf(found[5])
    assert found[6] == 0
    assert found.dtype == np.float32


def test_products_alone_are_narrow() -> None:
    table = with_products_in(
        {**PRIMITIVES, **FUSED, "addmm": lambda c, a, b: c + a @ b}, "bfloat16"
    )
    a, b = np.random.default_rng(0).normal(size=(2, 6, 6)).astype(np.float32)
    narrow = rounded_to(rounded_to(a, "bfloat16") @ rounded_to(b, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(table["matmul"](a, b), narrow)
    np.testing.assert_array_equal(table["tensordot"](a, b, axes=((1,), (0,))), narrow)
    np.testing.assert_array_equal(table["addmm"](a, a, b), a + narrow)
    assert table["sum"] is PRIMITIVES["sum"]
    assert with_products_in(PRIMITIVES, "") is PRIMITIVES


@pytest.mark.parametrize("dtype", FORMS)
def test_a_training_learns_what_one_in_float32_does(dtype: str) -> None:
    given = batches(400)  # more than bfloat16 can count
    session, exact = opened(dtype), opened("float32")
    loss, wanted = trained(session, given), trained(exact, given)
    assert abs(loss - wanted) < 0.01 * wanted < 0.02
    assert loss != wanted
    assert session.steps == 400
    kept = [*session.variables.values(), *(t for ts in session.slots.values() for t in ts.values())]
    assert {t.dtype for t in kept} == {np.dtype(np.float32)}
    assert any((rounded_to(t, dtype) != t).any() for t in session.variables.values())


def _with_scale(session: Session, scale: float) -> None:
    session.scaling = {SCALE: np.float32(scale), GOOD: np.float32(7)}


def _planned(session: Session, given: list[dict[str, Any]]) -> None:
    steps = TrainingSteps(session, ListedBatches(given, session.dtype))
    steps.begin({}, session.steps)
    steps.run(RATE, np.arange(len(given))[:, None])
    steps.store()


def _walked(session: Session, given: list[dict[str, Any]]) -> None:
    for batch in given:
        session.step(batch["inputs"], {}, batch["targets"], RATE)


def test_steps_whose_gradients_overflow_are_left_out_and_the_scale_halved() -> None:
    given, found = batches(4), []
    for run in (_walked, _planned):
        session = opened("float16")
        before = session.read()
        _with_scale(session, 2.0**100)
        run(session, given)
        assert session.scaling == {SCALE: 2.0**96, GOOD: 0}
        assert session.steps == 0
        for kind, arrays in session.read().items():
            assert all(np.all(a == before[kind][n]) for n, a in arrays.items() if kind != "slots")
        assert not any(t.any() for slot in session.slots.values() for t in slot.values())
        # What comes after are the first steps of its optimizer.
        _with_scale(session, 2.0**10)
        run(session, given)
        assert session.scaling == {SCALE: 2.0**10, GOOD: 11}
        assert session.steps == 4
        found.append(session.read()["parameters"])
    plain = opened("float16")
    _walked(plain, given)
    for name, array in plain.read()["parameters"].items():
        np.testing.assert_array_equal(found[0][name], array)
        np.testing.assert_allclose(found[1][name], array, rtol=1e-3, atol=1e-4)


def test_a_scale_that_was_good_for_long_is_doubled() -> None:
    session = opened("float16")
    assert session.scaling == initial_scaling(np.float32) == {SCALE: FIRST, GOOD: 0}
    session.scaling = {**session.scaling, GOOD: np.float32(GROWS - 2)}
    found = []
    for batch in batches(3):
        session.step(batch["inputs"], {}, batch["targets"], RATE)
        found.append((float(session.scaling[SCALE]), float(session.scaling[GOOD])))
    assert found == [(FIRST, GROWS - 1), (2 * FIRST, 0), (2 * FIRST, 1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_where_numbers_reach_far_nothing_is_scaled(dtype: str) -> None:
    assert (opened(dtype).scales, opened(dtype).scaling) == (False, {})
