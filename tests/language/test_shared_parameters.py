"""One parameter of two layers: a table that reads and is also the last product."""

from __future__ import annotations

import numpy as np
import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.runtime.claimed_calls import claims
from harness.runtime.plugins import load

MODEL = """\
model: tied
summary: Of a test.
source: Of a test.
sizes: {vocab: 5, units: 3}
inputs: {i: {shape: [batch, time], index: vocab}}
layers:
  embed: {layer: embedding, rows: vocab, units: units}
  out: {layer: unembedding, rows: vocab, shares: embed}
equations: logits = out(tanh(embed(i)))
targets: {target: {shape: [batch, time], index: vocab}}
loss: mean(sparse_cross_entropy(logits, target))
"""
UNTIED = MODEL.replace(", shares: embed", "")


def loaded(text: str):
    return load_spec("tied", overrides={("model", "tied"): text})


def test_there_is_one_parameter_and_its_gradient_is_the_sum_of_both() -> None:
    tied, untied = Case(loaded(MODEL), {}, 2, 3), Case(loaded(UNTIED), {}, 2, 3)
    assert [port.name for port in tied.training.parameters] == ["embed.table"]
    table = tied.material.parameters["embed.table"]
    same = {"embed.table": table, "out.table": table}
    material = untied.material.with_batch(tied.material)
    material.parameters.update(same)
    both = untied.gradients(material, "same").values
    found = tied.gradients(tied.material, "main").values
    expected = both["gradient.embed.table"] + both["gradient.out.table"]
    np.testing.assert_allclose(found["gradient.embed.table"], expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(found["loss"], both["loss"])
    assert complex_step_gap(tied) <= ALLOWED


def test_calls_are_told_apart_and_run_as_equations() -> None:
    program = loaded(MODEL).program("training")
    labels = [node.attributes["label"] for node in program.calls]
    assert labels[:2] == ["embed", "embed#2"]
    assert "embed" not in claims(load("torch"), program, "training")
    assert "embed" in claims(load("torch"), loaded(UNTIED).program("training"), "training")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("shares: embed", "shares: embedd", "layer 'embedd' ... 'embed'"),
        ("shares: embed", "shares: out", "layer 'out'"),
        ("shares: embed", "shares: embed, repeat: 2", ""),
        ("shares: embed", "shares: embed, init: {table: zeros}", "'init' ... 'embed'"),
        ("unembedding, rows: vocab", "unembedding, rows: units", "embed.table"),
        ("unembedding, rows: vocab", "dense, bias: false, units: vocab", "'W'"),
        (
            "out(tanh(embed(i)))",
            "out(one_hot(i, vocab)[..., :units]) + 0 * out(embed(i))",
            "",
        ),
    ],
)
def test_what_cannot_be_shared_is_told(
    before: str, after: str, message: str, wording: Wording
) -> None:
    assert before in MODEL
    with wording.raises(SpecError, message):
        loaded(MODEL.replace(before, after))
