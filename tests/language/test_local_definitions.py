"""Definitions inside a model's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.library import Library
from harness.language.model import ModelCollection, Spec, fingerprint, load_spec, notes_on
from harness.language.schema import Model, json_schema

MODEL = """\
model: own_parts
summary: A block, a function, a loss and an optimizer of its own.
source: Made for a test.
sizes: {width: 4}
inputs:
  x: {shape: [batch, time, width]}
layers:
  blocks: {layer: block, repeat: 2, wide: 5, activation: bend}
  out: {layer: dense, units: width}
definitions:
  - function: bend
    summary: A bend.
    source: Made for a test.
    inputs: {x: [...]}
    equations: y = x / sqrt(1 + x ** 2)
    output: y
  - layer: block
    summary: Two products with a bend between them.
    source: Made for a test.
    inputs: {x: [..., features]}
    attributes: {wide: size, activation: tanh}
    layers:
      up: {layer: dense, units: wide, activation: activation}
      down: {layer: dense, units: features}
    equations: |
      y = x + down(bend(up(x)))
    output: y
  - loss: cubed_error
    summary: A cube of the error's size.
    source: Made for a test.
    inputs: {prediction: [...], target: [...]}
    equations: y = abs(prediction - target) ** 3
    output: y
  - optimizer: half_step
    summary: Half a step of gradient descent.
    source: Made for a test.
    attributes: {learning_rate: 0.01}
    update: p = p - 0.5 * learning_rate * g
equations: |
  y = out(blocks(x))
targets:
  target: {shape: [batch, time, width]}
loss: mean(cubed_error(y, target))
optimizer: {optimizer: half_step, learning_rate: 0.1}
"""
BEND = MODEL[MODEL.index("  - function") : MODEL.index("  - layer")]
KINDS = {"function": "functions", "layer": "layers", "loss": "losses", "optimizer": "optimizers"}


def load(text: str) -> Spec:
    return load_spec("own_parts", overrides={("model", "own_parts"): text})


def as_files(folder: Path) -> Path:
    """Write the definitions of the model above as files; return the model's file without them."""
    start, rest = MODEL.split("definitions:\n")
    parts, end = rest.split("equations: |\n  y = out")
    for part in parts.split("  - ")[1:]:
        kind, name = part.split("\n", 1)[0].split(": ")
        (folder / KINDS[kind]).mkdir()
        text = part.replace("\n    ", "\n")
        (folder / KINDS[kind] / f"{name}.yaml").write_text(text, encoding="utf-8")
    (file := folder / "own_parts.yaml").write_text(f"{start}equations: |\n  y = out{end}")
    return file


def test_a_model_with_its_definitions_is_the_same_as_with_files(tmp_path: Path) -> None:
    spec, other = load(MODEL), load_spec(str(as_files(tmp_path)), [tmp_path])
    assert fingerprint(spec) == fingerprint(other)
    assert "blocks.1.down.W" in [port.name for port in spec.programs["training"].parameters]
    assert notes_on([spec]) == []
    places = {node.place for node in spec.programs["inference"].nodes if node.op == "add"}
    assert places == {"<models/own_parts.yaml>:15", "<models/own_parts.yaml>:26"}


def test_only_this_model_sees_them(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own_parts.yaml").write_text(MODEL)
    other = MODEL.replace("own_parts", "other").replace("layer: block\n", "layer: blocky\n")
    (tmp_path / "other.yaml").write_text(other)
    collection = ModelCollection(Library((tmp_path,)), limit=1)
    collection.add("own_parts")
    with pytest.raises(SpecError) as caught:
        collection.add(str(tmp_path / "other.yaml"))
    assert ":8:19: unknown layer 'block'" in str(caught.value)
    assert "'blocky'" in str(caught.value)
    assert collection["own_parts"].library is not collection.library
    assert not collection.library.has("layer", "block")


def test_a_shipped_definition_is_replaced_with_a_note(tmp_path: Path, wording: Wording) -> None:
    text = MODEL.replace("bend", "sigmoid")
    (tmp_path / "own_parts.yaml").write_text(text)
    collection = ModelCollection(Library())
    spec = collection.add(str(tmp_path / "own_parts.yaml"))
    assert notes_on([spec]) == collection.notes
    wording.line(
        collection.notes[0],
        f"{tmp_path}/own_parts.yaml:11:15 ... specs/functions/sigmoid.yaml:1:11",
    )
    (function,) = {
        node.attributes["meaning"].functions["activation"]
        for node in spec.programs["training"].calls
        if node.attributes.get("instance") == "blocks.0.up"
    }
    assert function.startswith("sigmoid@")
    shipped = Library().find("function", "sigmoid")
    assert spec.library.find("function", "sigmoid") is not shipped


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        ("x / sqrt(", "x / sqr(", ":15:24 ... 'sqr' ... 'sqrt'"),
        ("down(bend(up(x)))", "down(bend(upp(x)))", ":26:25 ... 'upp' ... :40:11"),
        ("units: features}", "units: feature}", ":24:35 ... 'feature'"),
        ("layers:\n      up", "layer: up\n      up", ":22:5"),
        ("inputs: {x: [..., features]}", "input: {x: [..., features]}", ":17:5 ... 'inputs'"),
        ("function: bend\n", "functoin: bend\n", ":11:5"),
        ("loss: cubed_error\n", "layer: block\n", ":28:12 ... 'block' ... :17:12"),
        ("output: y\n  - loss", "output: z\n  - loss", ":27:13 ... 'z'"),
        ("- 0.5 * learning_rate", "- 0.5", ":37:18"),
        ("update: p = p", "update: q = p", ":38:13 ... 'q'"),

        ("{prediction: [...]", "{prediction: [abs(2)]", ":31:27"),
        ("layer: block,", "layer: blocks,", ":8:19 ... 'blocks' ... 'block'"),
        ("wide: 5,", "wid: 5,", ":8:37"),
        ("optimizer: half_step,", "optimizer: sgd,", ":34:16 ... 'half_step'"),
        ("  - optimizer", f"{BEND}  - optimizer", ":34:15 ... :11:15"),
    ],
    ids=[
        *("function", "layer", "size", "kind twice", "key", "no kind", "same name", "output"),
        *("attribute", "slot", "axis", "use", "attribute of a use", "unused", "function twice"),
    ],
)  # fmt: skip
def test_errors_name_the_line_inside_the_definition(
    old: str, new: str, facts: str, tmp_path: Path, wording: Wording
) -> None:
    (file := tmp_path / "own_parts.yaml").write_text(MODEL.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_spec(str(file))
    wording.line(str(caught.value).splitlines()[0], f"{file}{facts}")


def test_a_folder_must_not_define_the_same_name(tmp_path: Path) -> None:
    as_files(tmp_path)
    (tmp_path / "own_parts.yaml").write_text(MODEL)
    with pytest.raises(SpecError) as caught:
        load_spec(str(tmp_path / "own_parts.yaml"), [tmp_path])
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["11", "17", "28", "34"]
    assert f"{tmp_path}/layers/block.yaml:1:8" in lines[1]


def test_the_schema_describes_them() -> None:
    schema = json_schema("model")
    kinds = schema["properties"]["definitions"]["items"]["oneOf"]
    assert {each["$ref"].rpartition("/")[2] for each in kinds} == {
        *("Layer", "Function", "Loss", "Optimizer"),
    }
    model = load(MODEL).model
    assert Model.model_validate_json(model.model_dump_json(exclude_none=True)) == model
    json.dumps(schema)
