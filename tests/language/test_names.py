"""Names that equations cannot read are refused where they are declared, others are free."""

from __future__ import annotations

import keyword

import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.model import load_spec

MODEL = """\
model: graph
summary: Of a test.
source: Of a test.
sizes: {SIZE: 3}
inputs:
  INPUT: {shape: [batch, SIZE]}
layers:
  LAYER: {layer: dense, units: SIZE}
equations: |
  y = LAYER(INPUT)
targets:
  TARGET: {shape: [batch, SIZE]}
loss: mean(squared_error(y, TARGET))
metrics: {METRIC: mean(y)}
"""
FREE = {"SIZE": "width", "INPUT": "x", "LAYER": "out", "TARGET": "z", "METRIC": "m"}


def named(**names: str) -> str:
    text = MODEL
    for place, name in {**FREE, **names}.items():
        text = text.replace(place, name)
    return text


def load(text: str) -> None:
    load_spec("graph", overrides={("model", "graph"): text}).program("training")


@pytest.mark.parametrize("place", ["SIZE", "INPUT", "LAYER", "TARGET"])
@pytest.mark.parametrize("word", ["in", "from", "class", "lambda", "None"])
def test_a_word_of_python_is_refused_where_it_is_declared(
    place: str, word: str, wording: Wording
) -> None:
    text = named(**{place: word})
    line = next(i for i, each in enumerate(text.split("\n"), 1) if f"{word}: " in each)
    with wording.raises(SpecError, f":{line} ... '{word}' ... {word.lower()}_1"):
        load(text)


UNTOLD = """\
model: untold
summary: Of a test.
source: Of a test.
sizes: {width: 3}
inputs: {x: {shape: [width], INDEX}}
layers: {}
equations: y = EQUATION
targets: {z: {shape: [batch, width]}}
loss: mean((y - z) ** 2)
"""


@pytest.mark.parametrize(
    ("index", "equation", "told"),
    [
        ("", "x * astype(arange(batch))[:, None]", "7 ... 'batch'"),
        ("", "x / time", "7 ... 'time'"),
        ("index: batch", "astype(x)", "5 ... 'batch'"),
    ],
)
def test_an_axis_that_no_array_decides_is_refused(
    index: str, equation: str, told: str, wording: Wording
) -> None:
    text = UNTOLD.replace(", INDEX", f", {index}" if index else "").replace("EQUATION", equation)
    with wording.raises(SpecError, told):
        load_spec("untold", overrides={("model", "untold"): text}).program("training")


def test_a_loss_may_take_the_batch_of_the_targets() -> None:
    text = UNTOLD.replace(", INDEX", "").replace("EQUATION", "2 * x")
    load_spec("untold", overrides={("model", "untold"): text}).program("training")


@pytest.mark.parametrize("place", FREE)
@pytest.mark.parametrize("word", ["list", "self", "torch", "match", "true_"])
def test_other_names_are_free(place: str, word: str) -> None:
    load(named(**{place: word}))


def test_a_metric_may_have_any_word() -> None:
    for word in keyword.kwlist:
        load(named(METRIC=f'"{word}"'))
