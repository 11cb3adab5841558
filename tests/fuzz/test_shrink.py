"""Failing cases are made smaller, and named after their functions."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from harness.fuzz.cases import Draft
from harness.fuzz.models import RandomModel
from harness.fuzz.shrink import shrink


def draft_of(*equations: str, **layers: str) -> Draft:
    inputs = {"x": "{shape: [batch, time, width]}", "y": "{shape: [batch, 7]}"}
    model = RandomModel(random.Random(0).randint, {"width": 20})
    model.equations, model.layers, model.inputs = list(equations), layers, inputs
    return Draft(0, "calls", model, "", 3, 4, "ordinary", "float32", 0)


def test_other_equations_and_lengths_are_removed() -> None:
    draft = draft_of("v0 = tanh(x)", "v1 = exp(v0)", "v2 = sum(y)")

    def rerun(candidate: Draft) -> Draft | None:
        fails = "exp(" in candidate.text and candidate.model.sizes["width"] > 12
        return candidate if fails else None

    smallest = shrink(draft, rerun, 10)
    assert smallest.model.equations == ["v1 = exp(x)"]
    assert (smallest.batch, smallest.time, smallest.model.sizes) == (1, 1, {"width": 13})


def test_attributes_become_simpler() -> None:
    layer = "{layer: conv2d, units: 5, kernel: [3, 2], padding: same, bias: true, activation: tanh}"
    draft = draft_of("v0 = layer0(x)", layer0=layer)
    smallest = shrink(draft, lambda c: c if "kernel: [3," in c.text else None, 10)
    attributes = dict(re.findall(r"(\w+): (\w+|\[.*\])", smallest.model.layers["layer0"]))
    numbers = {"units": "0", "kernel": "[3, 0]", "padding": "0"}
    assert attributes == {
        "layer": "conv2d",
        **numbers,
        "bias": "false",
        "activation": "linear",
    }


def test_an_optimizer_becomes_simpler() -> None:
    options = "schedule: 'minimum(1, t / 3)', total: {square: g * g}, average: 0.9"
    draft = replace(
        draft_of("v0 = tanh(x)"), optimizer=f"{{optimizer: adam, beta_1: 0.5, {options}}}"
    )
    assert "loss: mean(v0 * v0)" in draft.text
    smallest = shrink(draft, lambda c: c if "beta_1" in c.text else None, 10)
    assert smallest.optimizer == "{optimizer: adam, beta_1: 0.5}"


def test_the_search_ends_in_time() -> None:
    draft = draft_of("v0 = tanh(x)")
    assert shrink(draft, lambda candidate: candidate, 0) is draft


@pytest.mark.parametrize(
    ("equation", "functions"),
    [
        ("v0 = sum(x, axis=-1)", ("sum",)),
        ("v0 = x ** 0.5 + tanh(x[:, 0])", ("**", "+", "tanh", "slice")),
        ("v0 = layer0(x)", ("dense",)),
    ],
)
def test_functions_of_a_case(equation: str, functions: tuple[str, ...]) -> None:
    assert draft_of(equation, layer0="{layer: dense, units: 2}").functions == functions
