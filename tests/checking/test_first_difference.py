"""Where a planted fault is found: phase, layer, equation, time step, and parameters handed over
wrongly.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from wording import Wording

from harness.backends.numpy.backend import Numpy
from harness.backends.numpy.primitives import PRIMITIVES
from harness.checking.first_difference import Expectations, Location
from harness.checking.request import Request, make_case
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.oracle import ORDERS, Oracle
from harness.runtime.backend import Backend
from harness.runtime.session import Session, value_places

DTYPES = ("float64", "float32")


def case_of(name: str, overrides: Any = None) -> Case:
    return make_case(load_spec(f"lesson6/{name}", overrides=overrides), Request(), own=False)


@pytest.fixture(scope="module")
def lstm() -> Case:
    return case_of("stateful_lstm")


def definition(name: str) -> str:
    return files("harness.specs").joinpath(f"layers/{name}.yaml").read_text(encoding="utf-8")


def equation(name: str, start: str) -> str:
    """The place of a definition's equation, read off the file."""
    lines = definition(name).splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.strip().startswith(start)]
    return f"{name}.yaml:{number}"


def forward_location(case: Case, m: Any, trace: Any, dtype: str) -> Location | None:
    """Where a trace of a training pass first parts from the oracle."""
    expectations = Expectations(case, m, dtype)
    wrong = expectations.wrong(trace)
    return expectations.locate(wrong[0]) if wrong else None


def located(
    case: Case,
    backend: Backend,
    dtype: str,
    overrides: Any = None,
    model: str = "stateful_lstm",
    parameters: Mapping[str, Any] | None = None,
) -> Location | None:
    """Trace a backend that may read other definitions or be handed other parameters, and locate
    against the true case."""
    own = case_of(model, overrides) if overrides else case
    session = Session(backend, own.training, own.inference, path="equations", dtype=dtype)
    m = case.material
    session.load({**m.parameters, **(parameters or {})}, m.statistics)
    return forward_location(case, m, session.trace("training", m.inputs, m.state), dtype)


def planted(op: str, function: Callable[..., Any]) -> Numpy:
    backend = Numpy()
    backend.primitives = {**PRIMITIVES, op: function}
    return backend


def changed(layer: str, *edits: tuple[str, str]) -> Any:
    text = definition(layer)
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return {("layer", layer): text}


# --- Agreement --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lesson6())
def test_an_agreeing_backend_has_no_location(name: str) -> None:
    case = case_of(name.removeprefix("lesson6/"))
    for dtype in DTYPES:
        assert located(case, Numpy(), dtype) is None
        for order in ORDERS:
            assert located(case, Oracle(order), dtype) is None


# --- Faults of primitives ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_tanh_is_found_at_its_first_equation(
    lstm: Case, dtype: str, wording: Wording
) -> None:
    wrong = planted("tanh", lambda x: np.tanh(x) * np.asarray(1.001, x.dtype))
    found = located(lstm, wrong, dtype)
    assert found is not None
    assert (found.part.name, found.part.step) == ("lstm/g", 0)
    assert found.place.endswith(equation("lstm", "g ="))
    assert found.part.error == pytest.approx(1e-3, rel=0.01)
    assert found.hint == ""
    words = str(found)
    wording.line(words, "forward ... differs ... layer lstm ... 0")
    assert words.endswith(f"{equation('lstm', 'g =')}), by {found.part.error:.2e}")


def test_the_time_step_of_a_late_fault_is_named(lstm: Case) -> None:
    calls = 0

    def tanh(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.tanh(x) + (1e-3 if calls > 4 else 0.0)  # two a step: from the third step on

    found = located(lstm, planted("tanh", tanh), "float64")
    assert found is not None
    assert (found.part.name, found.part.step) == ("lstm/g", 2)


def test_a_fault_before_the_loop_is_found_at_its_layer(lstm: Case) -> None:
    wrong = planted("sqrt", lambda x: np.sqrt(x) + 1e-3)
    found = located(lstm, wrong, "float64")
    assert found is not None
    assert (found.part.name, found.part.step) == ("norm/y", 0)
    assert found.place.endswith(equation("batch_norm", "y = gamma * (x - center)"))


def test_a_nan_is_found(lstm: Case) -> None:
    found = located(lstm, planted("tanh", lambda x: np.full_like(x, np.nan)), "float32")
    assert found is not None
    assert found.part.name == "lstm/g"
    assert found.part.error == np.inf


# --- Faults of definitions --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_swapped_gates_are_named(lstm: Case, dtype: str, wording: Wording) -> None:
    """A backend whose gates i and f stand in each other's place: i is what f should be."""
    edits = [("i = gate(x_t @ W_i + h @ U_i + b_i", "i = gate(x_t @ W_f + h @ U_f + b_f")]
    edits += [("f = gate(x_t @ W_f + h @ U_f + b_f", "f = gate(x_t @ W_i + h @ U_i + b_i")]
    text = definition("lstm")
    for number, (old, _) in enumerate(edits):
        text = text.replace(old, f"<{number}>")
    for number, (_, new) in enumerate(edits):
        text = text.replace(f"<{number}>", new)
    found = located(lstm, Numpy(), dtype, {("layer", "lstm"): text})
    assert found is not None
    assert (found.part.name, found.part.step) == ("lstm/i", 0)
    assert found.place.endswith(equation("lstm", "i ="))
    wording(found.hint)
    assert str(found).endswith(f". {found.hint}")


def test_swapped_uses_of_gates_are_named(lstm: Case, wording: Wording) -> None:
    found = located(
        lstm, Numpy(), "float64", changed("lstm", ("c = f * c + i * g", "c = i * c + f * g"))
    )
    assert found is not None
    assert (found.part.name, found.part.step) == ("lstm/c", 0)
    wording(found.hint)


def test_gates_of_a_gru_are_named(wording: Wording) -> None:
    case = case_of("keras_gru")
    swapped = changed(
        "gru",
        ("(h * r) @ U_n", "(h * z) @ U_n"),
        ("h = z * h + (1 - z) * n", "h = r * h + (1 - r) * n"),
    )
    found = located(case, Numpy(), "float64", swapped, "keras_gru")
    assert found is not None
    assert found.part.name in ("gru/n", "gru/h")
    wording(found.hint)


def test_a_fault_that_is_no_swap_has_no_hint(lstm: Case) -> None:
    wrong = changed("lstm", ("c = f * c + i * g", "c = f * c + i * g * 1.01"))
    found = located(lstm, Numpy(), "float64", wrong)
    assert found is not None
    assert found.part.name == "lstm/c"
    assert found.hint == ""


@pytest.mark.parametrize(
    ("model", "value", "dtype"),
    [
        ("stateful_lstm", "lstm/g", "float32"),
        ("theano_gru", "gru/z", "float32"),
        ("stateful_lstm", "lstm/g", "float64"),
    ],
)
def test_a_small_fault_has_no_hint(model: str, value: str, dtype: str) -> None:
    """It is not that trading gates which the value does not depend on leaves it nearly right."""

    def tanh(x: Any) -> Any:
        if dtype == "float64":
            return np.tanh(x.astype(np.float32)).astype(x.dtype)
        return np.tanh(x) * np.asarray(1 + 1e-5, x.dtype)

    found = located(case_of(model), planted("tanh", tanh), dtype, model=model)
    assert found is not None
    assert (found.part.name, found.hint) == (value, "")


# --- Parameters handed over wrongly -----------------------------------------------------------


def traded(own: Mapping[str, Any], stems: str, one: str, other: str) -> dict[str, Any]:
    ways = (f"{one}{other}", f"{other}{one}")
    return {f"lstm.{stem}_{a}": own[f"lstm.{stem}_{b}"] for stem in stems for a, b in ways}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stems", ["WUb", "W", "U", "b"])
def test_traded_parameters_are_named(lstm: Case, stems: str, dtype: str, wording: Wording) -> None:
    for one, other in itertools.combinations("ifgo", 2):
        wrong = traded(lstm.material.parameters, stems, one, other)
        found = located(lstm, Numpy(), dtype, parameters=wrong)
        what = f"{stems}_{one} and {stems}_{other} of lstm"
        if len(stems) > 1:
            what = f"the gates {one} and {other} of lstm"
        assert found is not None
        wording(found.hint, f"{what}")


def test_a_trade_that_leaves_a_difference_is_no_hint(lstm: Case) -> None:
    wrong = traded(lstm.material.parameters, "WUb", "g", "o")
    backend = planted("tanh", lambda x: np.tanh(x) * (1 + 1e-7))
    found = located(lstm, backend, "float64", parameters=wrong)
    assert found is not None
    assert (found.part.name, found.hint) == ("lstm/g", "")


def test_a_trade_that_changes_next_to_nothing_is_no_hint(lstm: Case) -> None:
    """Gates that are the same but for a few tolerances: any small difference could be a trade."""
    for gap, hinted in ((4e-5, False), (1e-3, True)):
        parameters = dict(lstm.material.parameters)
        for stem in "WUb":
            parameters[f"lstm.{stem}_f"] = parameters[f"lstm.{stem}_i"]
        parameters["lstm.b_f"] = parameters["lstm.b_i"] + gap
        m = replace(lstm.material, parameters=parameters)
        session = Session(Numpy(), lstm.training, lstm.inference, path="equations", dtype="float32")
        session.load({**parameters, **traded(parameters, "WUb", "i", "f")}, m.statistics)
        trace = session.trace("training", m.inputs, m.state)
        found = forward_location(lstm, m, trace, "float32")
        assert found is not None
        assert (found.part.name, bool(found.hint)) == ("lstm/i", hinted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("model", "name"),
    [("stateful_lstm", "lstm.U_i"), ("stateful_lstm", "lstm.U_o"), ("simple_rnn", "rnn.U")],
)
def test_a_transposed_matrix_is_named(model: str, name: str, dtype: str, wording: Wording) -> None:
    case = case_of(model)
    wrong = {name: case.material.parameters[name].T}
    found = located(case, Numpy(), dtype, model=model, parameters=wrong)
    layer, _, matrix = name.partition(".")
    assert found is not None
    wording(found.hint, f"{matrix} ... {layer}")


def test_a_sequence_made_as_a_whole_is_compared_step_by_step(lstm: Case) -> None:
    session = Session(Numpy(), lstm.training, lstm.inference, path="equations", dtype="float64")
    m = lstm.material
    session.load(m.parameters, m.statistics)
    traced = {n: a for n, t, a in session.trace("training", m.inputs, m.state) if t is None}
    states = traced["hidden_states"]
    states[:, 2:] += 1e-6
    found = forward_location(lstm, m, [("hidden_states", None, states)], "float64")
    assert found is not None
    assert (found.part.name, found.part.step) == ("hidden_states", 2)


def test_places_are_the_equations_lines(lstm: Case) -> None:
    found = value_places(lstm.training)
    for gate in "ifgoch":
        pattern = rf"(.*/)?layers/{re.escape(equation('lstm', f'{gate} ='))}"
        assert re.fullmatch(pattern, found[f"lstm/{gate}"])
    assert found["norm/variance"].endswith(equation("batch_norm", "variance ="))
