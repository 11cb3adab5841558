"""Parameters that a model has of its own, beside those of its layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.initial_values import initial_parameters
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.runtime.native import ClaimableCall

FILE = Path(__file__).parents[1] / "support" / "odd_models" / "first_place.yaml"
TEXT = FILE.read_text()


def spec(*changes: tuple[str, str]) -> Spec:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_spec("first_place", overrides={("model", "first_place"): text})


def test_they_stand_before_those_of_layers() -> None:
    program = spec().program()
    names = [port.name for port in program.parameters]
    assert names[:4] == ["own.token", "own.tied", "own.scale", "attend.W_q"]
    assert [program.shape(p) for p in program.parameters[:3]] == [(4,), (4, 6), ()]
    assert program.with_sizes(features=7).shape(program.parameters[1]) == (7, 6)


def test_they_are_drawn_by_their_laws() -> None:
    arrays = initial_parameters(spec().program(), 0)
    assert (arrays["own.scale"], arrays["own.scale"].shape) == (1, ())
    assert 0 < np.abs(arrays["own.token"]).max() < 0.2


def test_their_derivatives_are_those_of_the_complex_step() -> None:
    case = Case(spec(), {}, 2, 3)
    found = case.gradients(case.material, "main").values
    # One number has no axes: numpy is fond of drawing it with one.
    assert (case.material.parameters["own.scale"].shape, found["loss"].shape) == ((), ())
    assert all(np.abs(found[f"gradient.own.{n}"]).max() > 0 for n in ("token", "tied", "scale"))
    assert complex_step_gap(case) <= ALLOWED


def test_no_backend_knows_them_by_a_name_of_a_layer() -> None:
    program = spec().program()
    (call,) = (n for n in program.nodes if n.op == "call" and n.attributes.get("instance") == "own")
    claimable = ClaimableCall.of(program, call)
    assert claimable.definition == "parameters of first_place"
    assert claimable.shapes == {"token": (4,), "tied": (4, 6), "scale": ()}


def test_a_model_may_have_no_others_and_no_sizes() -> None:
    text = """
model: line
summary: A line.
source: none
inputs: {x: {shape: [batch]}}
parameters: {a: {shape: [], init: ones}, b: {shape: [], init: zeros}}
equations: y = a * x + b
loss: mean(y ** 2)
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""
    line = load_spec("line", overrides={("model", "line"): text})
    assert [port.name for port in line.program().parameters] == ["own.a", "own.b"]
    assert complex_step_gap(Case(line, {}, 2, 1)) <= ALLOWED


SCALE, TOKEN = "scale: {shape: []", "token: {shape: [features]"


def another(name: str) -> str:
    return f"{name}: {{shape: [], init: ones}}\n  {SCALE}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (SCALE, another("spare"), "10:3 ... 'spare'"),
        (SCALE, another("x"), "10:3: 'x' ... :6:3"),
        (SCALE, another("sum"), "10:3: 'sum'"),
        (TOKEN, "token: {shape: [batch]", "own.token ... [batch] ... cannot"),
        (TOKEN, "token: {shape: [feature]", "8:19 ... 'feature'"),
        ("init: glorot_uniform", "init: glorot", "9:49 ... 'glorot'"),
        ("{std: 0.02}", "{std: width}", "8:36"),
        ("  whole = ", "  token = x\n  whole = ", "15:3: 'token'"),
        ("out: {layer:", "own: {layer:", "13:3: 'own'"),
        (f"{TOKEN}, init: {{normal: {{std: 0.02}}}}}}", "token: 3", "8:10"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    old: str, new: str, told: str, wording: Wording
) -> None:
    with wording.raises(SpecError, told):
        spec((old, new))


@pytest.mark.parametrize(
    ("count", "told"),
    [
        ("0", "1 ... 0"),
        ("many", "'many'"),
        ("[token]", ""),
        ("{}", "'token'"),
    ],
)
def test_a_number_in_their_place_is_how_many_there_are(
    count: str, told: str, wording: Wording
) -> None:
    start, _, rest = TEXT.partition("parameters:\n")
    text = f"{start}parameters: {count}\nlayers:\n{rest.partition('layers:')[2]}"
    with wording.raises(SpecError, told):
        load_spec("first_place", overrides={("model", "first_place"): text})
