"""Initial parameters of whole programs: blocks, fans, stripes and planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from golden.tiny import tiny
from small_models import tiny as small

from harness.language.initial_values import (
    block_parts,
    check_initial_values,
    initial_parameters,
    initial_statistics,
    parameter_blocks,
)
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.ir import Program

Arrays = dict[str, Any]


@cache
def program(name: str, **sizes: int) -> Program:
    return load_spec(f"lesson6/{name}").program("training", **sizes)


@pytest.fixture(scope="module")
def lstm() -> Arrays:
    return initial_parameters(program("stateful_lstm"), 0)


def orthonormal_rows(matrix: Any) -> bool:
    return bool(np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-12))


# --- Blocks -----------------------------------------------------------------------------------


def test_gates_are_drawn_as_one_matrix(lstm: Arrays) -> None:
    """[256, 1024] with orthonormal rows, as Keras draws it; no gate is orthogonal by itself."""
    whole = np.concatenate([lstm[f"lstm.U_{g}"] for g in "ifgo"], axis=1)
    assert whole.shape == (256, 1024)
    assert orthonormal_rows(whole)
    for gate in "ifgo":
        assert not orthonormal_rows(lstm[f"lstm.U_{gate}"])
        assert not orthonormal_rows(2 * lstm[f"lstm.U_{gate}"])


def test_fans_are_those_of_the_whole_block(lstm: Arrays) -> None:
    limit = math.sqrt(6 / (42 + 4 * 256))
    assert round(limit, 4) == 0.0750
    largest = max(np.abs(lstm[f"lstm.W_{g}"]).max() for g in "ifgo")
    assert 0.999 * limit < largest <= limit
    gru = initial_parameters(program("keras_gru"), 0)
    limit = math.sqrt(6 / (86 + 3 * 256))
    assert round(limit, 4) == 0.0838
    largest = max(np.abs(gru[f"gru.W_{g}"]).max() for g in "zrn")
    assert 0.999 * limit < largest <= limit


def test_the_forget_gates_bias_starts_at_1(lstm: Arrays) -> None:
    found = {g: set(lstm[f"lstm.b_{g}"].tolist()) for g in "ifgo"}
    assert found == {"i": {0.0}, "f": {1.0}, "g": {0.0}, "o": {0.0}}


def test_blocks_of_two_layers_are_apart() -> None:
    found = parameter_blocks(program("stateful_lstm"))
    sizes = {ports[0].name: len(ports) for ports in found}
    assert sizes["lstm.W_i"] == sizes["lstm.U_i"] == 4
    assert sizes["lstm.b_i"] == sizes["out.W"] == 1
    assert sum(sizes.values()) == len(program("stateful_lstm").parameters)


def test_an_overridden_law_leaves_the_block() -> None:
    """theano_gru draws each gate by itself; its candidate's U is the identity."""
    drawn = initial_parameters(program("theano_gru"), 0)
    assert np.array_equal(drawn["gru.U_n"], np.eye(256))
    assert {len(ports) for ports in parameter_blocks(program("theano_gru"))} == {1}
    assert np.std(drawn["gru.U_z"]) == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert np.std(drawn["gru.W_z"]) == pytest.approx(math.sqrt(2 / 86), rel=0.02)


# --- Stripes ----------------------------------------------------------------------------------


def test_stripes_of_the_combined_gru() -> None:
    combined = program("theano_gru_combined")
    candidate = initial_parameters(combined, 0)["gru.K_n"]
    assert candidate.shape == (256 + 86, 256)
    assert np.array_equal(candidate[:256], np.eye(256))
    assert np.std(candidate[256:]) == pytest.approx(1.0, abs=0.02)
    assert not np.any(candidate[256:] == 0)
    (ports,) = [p for p in parameter_blocks(combined) if p[0].name == "gru.K_n"]
    assert [(law.name, shape) for law, shape in block_parts(combined, ports)] == [
        ("identity", (256, 256)),
        ("normal", (86, 256)),
    ]


def test_a_scalar_parameter_is_drawn() -> None:
    text = """layer: scaled
summary: s
source: s
inputs: {x: [batch, time, features]}
parameters:
  a: {shape: [], init: ones}
  k: {shape: [], init: {constant: {value: 0.5}}}
equations: y = k * a * x
output: y
"""
    case = tiny("layer", "scaled", overrides={("layer", "scaled"): text})
    drawn = initial_parameters(case.program, 0)
    assert {n: (a.shape, float(a)) for n, a in drawn.items()} == {
        "cell.a": ((), 1.0),
        "cell.k": ((), 0.5),
    }
    assert check_initial_values(case.program, drawn) == []
    drawn["cell.k"] = np.array(0.25)
    assert len(check_initial_values(case.program, drawn)) == 1


# --- Seeds, statistics, laws ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stateful_lstm", "theano_gru_combined", "three_char"])
def test_the_same_seed_gives_the_same_values_and_another_others(name: str) -> None:
    small = program(name, hidden=16)
    one, same, other = (initial_parameters(small, seed) for seed in (3, 3, 4))
    random = 0
    for port in small.parameters:
        array = one[port.name]
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
        assert array.shape == small.shape(port)
        assert array.tobytes() == same[port.name].tobytes()
        random += array.tobytes() != other[port.name].tobytes()
    assert random >= 3


def test_layers_of_one_shape_start_apart() -> None:
    drawn = initial_parameters(program("three_char"), 0)
    tables = [drawn[f"embed_{n}.table"] for n in (1, 2, 3)]
    assert not np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[1], tables[2])


def test_statistics_start_at_their_laws() -> None:
    found = initial_statistics(program("stateful_lstm"))
    assert {n: set(a.tolist()) for n, a in found.items()} == {
        "norm.moving_mean": {0.0},
        "norm.moving_variance": {1.0},
    }
    assert found["norm.moving_mean"].shape == (42,)
    assert initial_statistics(program("keras_gru")) == {}


@pytest.mark.parametrize("name", lesson6())
def test_drawn_values_follow_their_laws(name: str) -> None:
    whole = program(name.removeprefix("lesson6/"), hidden=64)
    assert check_initial_values(whole, initial_parameters(whole, 1)) == []


def scaled(name: str, factor: float) -> Callable[[Arrays], None]:
    def plant(drawn: Arrays) -> None:
        drawn[name] = drawn[name] * factor

    return plant


def one_gate(drawn: Arrays) -> None:
    """Every gate orthogonal by itself, as a framework draws that splits the kernel first."""
    rng = np.random.default_rng(0)
    for gate in "ifgo":
        drawn[f"lstm.U_{gate}"] = np.linalg.qr(rng.normal(size=(256, 256)))[0]


def forget_bias(drawn: Arrays) -> None:
    drawn["lstm.b_f"] = np.zeros(256)


def not_finite(drawn: Arrays) -> None:
    drawn["out.W"] = drawn["out.W"].copy()
    drawn["out.W"][0, 0] = np.nan


FAULTS: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "one gate by itself": (one_gate, "lstm.U_i, lstm.U_f, lstm.U_g, lstm.U_o: "),
    "bias of the forget gate at 0": (forget_bias, "lstm.b_f: "),
    "fans of one gate": (scaled("lstm.W_i", math.sqrt((42 + 1024) / (42 + 256))), "lstm.W_i, "),
    "normal for uniform": (scaled("out.W", 1.1), "out.W: "),
    "embedding too narrow": (scaled("embed.table", 0.9), "embed.table: "),
    "gamma off by a hundred-thousandth": (scaled("norm.gamma", 1 + 1e-5), "norm.gamma: "),
    "a NaN": (not_finite, "out.W: 1 of 22016 values are not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, lstm: Arrays) -> None:
    plant, words = FAULTS[fault]
    drawn = dict(lstm)
    plant(drawn)
    (found,) = check_initial_values(program("stateful_lstm"), drawn)
    assert found.startswith(words)


def test_a_fault_in_one_stripe_is_named() -> None:
    combined = program("theano_gru_combined")
    drawn = initial_parameters(combined, 0)
    for rows, factor in ((slice(256, None), 0.1525), (slice(0, 256), 1.001)):
        planted = drawn["gru.K_n"].copy()
        planted[rows] *= factor
        (found,) = check_initial_values(combined, {**drawn, "gru.K_n": planted})
        assert found.startswith("gru.K_n: ")


SPREAD = """\
layer: spread
summary: Of a test.
source: Of a test.
inputs: {x: [..., features]}
attributes: {std: 0.25}
parameters: {W: {shape: [features, features], init: {normal: {std: std}}}}
equations: y = x @ W
output: y
"""


@pytest.mark.parametrize(
    ("layers", "equation"),
    [
        ("{a: {layer: spread}}", "y = a(a(x))"),
        ("{a: {layer: spread, init: {W: zeros}}}", "y = a(x)"),
        ("{a: {layer: spread}, b: {layer: spread, shares: a}}", "y = b(a(x))"),
    ],
    ids=["called twice", "another law", "shared"],
)
def test_an_attribute_of_a_law_that_a_call_does_not_draw_is_used(
    layers: str, equation: str
) -> None:
    spec = small([equation], layers=layers, overrides={("layer", "spread"): SPREAD})
    assert [port.name for port in spec.program("training").parameters] == ["a.W"]
