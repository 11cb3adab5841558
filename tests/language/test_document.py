"""Documents: plain data that knows its places, and its way into a model."""

import pytest
import yaml
from pydantic import BaseModel, ConfigDict
from wording import Wording

from harness.errors import Place, SpecError
from harness.language import document
from harness.language.document import load, parse, validate

SPEC = """\
model: tiny  # a comment
sizes: {hidden: 256, rate: 1e-3}
layers:
  rnn:
    kind: gru
    hidden: 512
  out: {kind: dense, units: [1, wide]}
stateful: false
equations: |
  h = rnn(x)

    y = out(h)
loss: 'mean(y)'
"""


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _each_parser(request, monkeypatch):
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))


def test_data_is_plain_and_of_yaml_1_2():
    data = parse(SPEC, "m.yaml").data
    assert data["sizes"] == {"hidden": 256, "rate": 0.001}
    assert isinstance(data["sizes"]["rate"], float)
    assert data["stateful"] is False
    assert data["layers"]["out"]["units"] == [1, "wide"]
    assert parse("n: y\na: [-1, +2, .5, 1., 1.0.0, 2 * x, '010', \"no\"]", "m.yaml").data == {
        "n": "y",
        "a": [-1, 2, 0.5, 1.0, "1.0.0", "2 * x", "010", "no"],
    }


@pytest.mark.usefixtures("_each_parser")
def test_places_of_keys_and_values():
    document = parse(SPEC, "m.yaml")
    hidden = ("layers", "rnn", "hidden")
    assert document.place_of_key(hidden) == Place("m.yaml", 6, 5)
    assert document.place_of(hidden) == Place("m.yaml", 6, 13)
    assert document.place_of(("layers", "rnn")) == Place("m.yaml", 5, 5)
    assert document.place_of(("layers", "out", "units", 1)) == Place("m.yaml", 7, 33)
    assert document.place_of_key(("layers", "out", "units", 1)) == Place("m.yaml", 7, 33)
    assert document.place_of(("layers", "absent", 3)) == Place("m.yaml", 4, 3)
    assert document.place_of(()) == Place("m.yaml", 1, 1)


@pytest.mark.usefixtures("_each_parser")
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_a_locator_points_into_the_text(line_break):
    document = parse(SPEC.replace("\n", line_break), "m.yaml")
    equations, locate = document.data["equations"], document.locator(("equations",))
    assert equations.split("\n")[2][2:] == "y = out(h)"
    assert [locate(0, 0), locate(2, 2)] == [Place("m.yaml", 10, 3), Place("m.yaml", 12, 5)]
    assert document.locator(("loss",))(0, 5) == Place("m.yaml", 13, 13)
    assert document.locator(("model",))(0, 1) == Place("m.yaml", 1, 9)


def test_a_locator_of_a_block_with_its_own_indentation():
    document = parse("a:\n - |2-\n\n     x\n", "m.yaml")
    assert document.data == {"a": ["\n  x"]}
    assert document.locator(("a", 0))(1, 2) == Place("m.yaml", 4, 6)


@pytest.mark.parametrize(
    "text", ["a: >\n  x\n", "a: >-\n  -\n", "a: x\n  y", 'a: "x\\ty"', "a: 'it''s'"]
)
def test_a_text_that_cannot_be_located_is_refused(text, wording: Wording):
    with wording.raises(SpecError, "m.yaml:1:4"):
        parse(text, "m.yaml").locator(("a",))


class Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    shape: tuple[int | str, ...]
    rate: float


def test_a_file_on_its_way_into_a_model(tmp_path, wording: Wording):
    path = tmp_path / "m.yaml"
    path.write_text("shape: [batch, 3]\nrate: 1\n")
    assert validate(load(path), Sizes) == Sizes(shape=("batch", 3), rate=1.0)
    path.write_text("shape: [batch, 3]\nrat: 1\n")
    with pytest.raises(SpecError) as caught:
        validate(load(path), Sizes)
    wording(
        str(caught.value).split("\n"), f"{path}:1:1 ... 'rate' ... {path}:2:1 ... 'rat' ... 'rate'"
    )
