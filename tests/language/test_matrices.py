"""Optimizers that do with parameters of two axes what they do with no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from wording import Wording

from harness.checking.explain_definition import Definitions
from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.language.lower_optimizer import lower_update
from harness.language.model import Spec, fingerprint, load_spec
from harness.oracle import oracle
from harness.program.updates import UpdateRule, at_shape, by_parameter, by_rank, slot_shapes
from harness.runtime.updates import initial_slots

OPTIMIZER = """\
optimizer: split
summary: One.
source: Made for a test.
attributes: {learning_rate: 0.5, keep: 0.5}
slots: {v: zeros, both: ones}
total: {square: g * g}
update: |
  v = keep * v + g
  both = both + 1
  p = p - learning_rate * both * v / square
matrices:
  slots: {long: {shape: [rows, 1]}, wide: {shape: [columns]}, both: p}
  update: |
    long = keep * long + sum(g, axis=1, keepdims=true)
    wide = keep * wide + max(g, axis=0)
    both = both + rows
    p = p - learning_rate * EXPRESSION
"""
EXPRESSION = "both * (long + wide) / square"
P, G = np.arange(6.0).reshape(2, 3), np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -3.0]])
# What may be said of a matrix -> what it comes to, of p and g.
SAID = {
    "g @ permute_dims(g, axes=[1, 0]) @ p": lambda p, g: g @ g.T @ p,
    "g * columns - p / rows": lambda p, g: g * p.shape[1] - p / p.shape[0],
    "g / max(g)": lambda p, g: g / np.max(g),
    "g - mean(g)": lambda p, g: g - np.mean(g),
    "g - mean(g, axis=0)": lambda p, g: g - np.mean(g, axis=0),
    "g * var(p, axis=1, keepdims=true)": lambda p, g: g * np.var(p, axis=1, keepdims=True),
    "g + expand_dims(sum(p, axis=-1), axis=1)": lambda p, g: g + p.sum(-1, keepdims=True),
    "g + sum(p, axis=-1)[:, None]": lambda p, g: g + p.sum(-1, keepdims=True),
    "newton_schulz(g)": lambda p, g: near(g),
}


def near(g: np.ndarray) -> np.ndarray:
    left, s, right = np.linalg.svd(g, full_matrices=False)
    return left @ np.diag(3.4445 * s - 4.775 * s**3 + 2.0315 * s**5) @ right


def rule(text: str) -> UpdateRule:
    return lower_update(Library((), {("optimizer", "split"): text}), "split", {}, None)


def saying(expression: str) -> str:
    """An optimizer that says nothing else of matrices."""
    before, _, _ = OPTIMIZER.partition("matrices:")
    return f"{before}matrices:\n  update: p = p - learning_rate * ({expression})\n"


def updated(found: UpdateRule, p: np.ndarray, g: np.ndarray) -> Mapping[str, Any]:
    """What one step makes of a parameter by itself, and of its slots."""
    own = found.of("w", p.ndim)
    env = {own.parameter: p, own.gradient: g, own.step: np.float64(1.0)}
    env[own.learning_rate] = np.float64(0.5)
    slots = initial_slots(found, {"w": p})
    env |= {port.value: slots[port.name]["w"] for port in own.slots}
    for total in own.totals:
        env = oracle.run(at_shape(own, total.nodes, p.shape), env, {"entries": p.size})
        env[total.value] = env[total.part]
    made = oracle.run(at_shape(own, own.nodes, p.shape), env, {"entries": p.size})
    return {"p": made[own.new_parameter], **{s.name: made[s.value] for s in own.new_slots}}


def test_a_matrix_has_its_own_update_and_slots() -> None:
    found = updated(rule(OPTIMIZER.replace("EXPRESSION", EXPRESSION)), P, G)
    long, wide, both = G.sum(1, keepdims=True), G.max(0), P + 2
    assert set(found) == {"p", "long", "wide", "both"}
    np.testing.assert_array_equal(found["long"], long)
    np.testing.assert_array_equal(found["wide"], wide)
    np.testing.assert_array_equal(found["both"], both)
    np.testing.assert_allclose(found["p"], P - 0.5 * both * (long + wide) / np.sum(G * G))


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3), (), (1, 1, 1, 1)], ids=str)
def test_all_others_have_the_other(shape: tuple[int, ...]) -> None:
    p, g = np.resize(P, shape), np.resize(G, shape)
    found = updated(rule(OPTIMIZER.replace("EXPRESSION", EXPRESSION)), p, g)
    assert set(found) == {"p", "v", "both"}
    np.testing.assert_allclose(found["p"], p - 0.5 * 2 * g / np.sum(g * g))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 6), (6, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("expression", SAID)
def test_what_may_be_said_of_a_matrix(expression: str, shape: tuple[int, int]) -> None:
    p, g = np.resize(P, shape), np.resize(G, shape)
    found = updated(rule(saying(expression)), p, g)["p"]
    np.testing.assert_allclose(found, p - 0.5 * SAID[expression](p, g), rtol=1e-13, atol=1e-13)


REFUSED = {
    "g[0]": r"an update of matrices cannot use slice",
    "take(g, arange(rows))": r"an update of matrices cannot use \w+",
    "g @ g": r"rows",
    "sum(g, axis=1) * g": r"rows",
    "v * g": r"unknown name 'v'",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_refused_of_a_matrix(expression: str) -> None:
    with pytest.raises(SpecError, match=REFUSED[expression]) as caught:
        rule(saying(expression))
    assert "split.yaml>:1" in str(caught.value)


WRONG = {
    "long: {shape: [rows, 1]}": {
        "long: {shape: [row, 1]}": "unknown size 'row'",
        "long: {shape: [rows, 0]}": "at least 1 entry",
        "long: {shape: [columns, 1]}": r"\[columns, 1\] and \[rows, 1\] cannot be broadcast",
        "long: {shape: [1, 1]}": r"'long' is \[1, 1\], but becomes \[rows, 1\]",
        "long: nothing": "a slot must start as",
        "keep: zeros, long: zeros": "'keep' is also declared in attributes",
        "square: zeros, long: zeros": "'square' is also declared in total",
        "rows: zeros, long: zeros": "'rows' is reserved",
        "more: zeros, long: {shape: [rows, 1]}": "'more' is declared but never used",
    },
    "slots: {v: zeros": {"slots: {rows: zeros": "'rows' is reserved"},
    "* both * v / square": {"* both * v": None},
    "p = p - learning_rate * EXPR": {"p = p - EXPR": "'learning_rate' is declared but never used"},
}


@pytest.mark.parametrize(("right", "wrong"), [(a, b) for a, bs in WRONG.items() for b in bs])
def test_what_is_wrong_is_told(right: str, wrong: str) -> None:
    """A total or an attribute that one of the two reads is used."""
    assert right in OPTIMIZER
    text = OPTIMIZER.replace(right, wrong).replace("EXPRESSION", EXPRESSION)
    message = WRONG[right][wrong]
    if message is None:
        rule(text)
        return
    with pytest.raises(SpecError, match=message) as caught:
        rule(text)
    assert re.search(r"split\.yaml>:\d+:\d+", str(caught.value))


def test_shapes_of_slots_are_those_of_each_parameter() -> None:
    found = rule(OPTIMIZER.replace("EXPRESSION", EXPRESSION))
    shapes = {"w": (2, 3), "b": (4,)}
    wanted = {
        "long": {"w": (2, 1)},
        "wide": {"w": (3,)},
        "both": {"w": (2, 3), "b": (4,)},
        "v": {"b": (4,)},
    }
    assert slot_shapes(found, shapes) == wanted
    made = initial_slots(found, {n: np.full(shape, 7.0) for n, shape in shapes.items()})
    assert {s: {n: a.shape for n, a in ts.items()} for s, ts in made.items()} == wanted
    assert (made["both"]["w"] == 7.0).all()
    assert (made["both"]["b"] == 1.0).all()
    # A model without matrices keeps nothing of theirs.
    assert set(initial_slots(found, {"b": np.zeros(3)})) == {"v", "both"}


MODEL = """\
model: small
summary: A matrix and a vector.
source: Made for a test.
sizes: {features: 3}
inputs:
  x: {shape: [batch, features]}
layers:
  out: {layer: dense, units: features}
equations: y = out(x)
targets:
  target: {shape: [batch, features]}
loss: mean(squared_error(y, target))
optimizer: USE
"""


def spec_with(use: str) -> Spec:
    return load_spec("small", overrides={("model", "small"): MODEL.replace("USE", use)})


def test_a_group_can_be_kept_from_it(wording: Wording) -> None:
    use = "{optimizer: muon, groups: [{parameters: out.W, matrices: false}]}"
    found, plain = spec_with(use).update, spec_with("{optimizer: muon}").update
    assert found is not None
    assert plain is not None
    assert [p.name for p in found.of("out.W", 2).slots] == ["m", "v"]
    assert [p.name for p in plain.of("out.W", 2).slots] == ["m"]
    assert [p.name for p in plain.of("out.W", 3).slots] == ["m", "v"]
    assert fingerprint(spec_with(use)) != fingerprint(spec_with("{optimizer: muon}"))
    with wording.raises(SpecError):
        spec_with("{optimizer: sgd, groups: [{parameters: out.W, matrices: false}]}")


def test_it_matters_which_entries_are_those_of_one_parameter() -> None:
    """Even of a rule without a sum: a tensor of two axes may hold several parameters."""
    found = rule(saying("2 * g"))
    assert by_rank(found)
    assert by_parameter(found)
    assert "matmul" in {
        node.op for node in rule(saying("g @ permute_dims(g, axes=[1, 0]) @ g")).every_node
    }


def test_what_is_done_with_matrices_is_part_of_what_it_means() -> None:
    texts = [OPTIMIZER.replace("EXPRESSION", e) for e in (EXPRESSION, EXPRESSION + " * 2")]
    texts.append(texts[0].replace("[rows, 1]", "[rows, columns]"))
    sums = [
        checksum(Library((), {("optimizer", "split"): text}), "optimizer", "split")
        for text in texts
    ]
    assert len(set(sums)) == 3


def test_explain_shows_it(wording: Wording) -> None:
    shown = Definitions.of("adafactor", Library()).text()
    assert "slots of matrices\n  of_rows     [rows, 1]\n  of_columns  [1, columns]\n" in shown
    assert "  b = 1 - t ** -power\n  squares = g * g + epsilon\n" in shown
