"""A definition is known by what it means: not by its name, its text or its defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from changed_definitions import OTHER, SAME, changed, shipped

from harness.language.checksums import DIGITS, checksum, known_name
from harness.language.library import FOLDERS, Library
from harness.language.model import fingerprint, load_spec, notes
from harness.runtime.native import ClaimableCall

KINDS = ("layer", "function", "loss", "optimizer")
SHIPPED = [(kind, name) for kind in KINDS for name in Library().names(kind)]


def titled(case: tuple[str, str, str, str]) -> str:
    return f"{case[1]}: {case[3][:24]}"


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_what_ships_is_known_by_its_name(kind: str, name: str) -> None:
    assert known_name(Library(), kind, name) == name


def test_no_two_definitions_that_ship_mean_the_same() -> None:
    found = [checksum(Library(), kind, name) for kind, name in SHIPPED]
    assert len(set(found)) == len(SHIPPED)


@pytest.mark.parametrize("case", OTHER, ids=titled)
def test_another_meaning_under_a_name_is_another_name(case: tuple[str, str, str, str]) -> None:
    kind, name, old, new = case
    library = Library((), {(kind, name): changed(kind, name, old, new)})
    found = known_name(library, kind, name)
    assert found == f"{name}@{checksum(library, kind, name)}"
    assert len(found) == len(name) + 1 + DIGITS


@pytest.mark.parametrize("case", SAME, ids=titled)
def test_the_same_in_other_words_is_the_same(case: tuple[str, str, str, str]) -> None:
    kind, name, old, new = case
    library = Library((), {(kind, name): changed(kind, name, old, new)})
    assert known_name(library, kind, name) == name


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_copy_is_known_by_the_name_of_what_it_copies(kind: str, name: str) -> None:
    text = shipped(kind, name).replace(f"{kind}: {name}\n", f"{kind}: mine\n")
    assert known_name(Library((), {(kind, "mine"): text}), kind, "mine") == name


def test_a_definition_of_its_own_has_its_own_name() -> None:
    text = changed("layer", "lstm", "h = o *", "h = o * o *").replace("layer: lstm", "layer: mine")
    assert known_name(Library((), {("layer", "mine"): text}), "layer", "mine") == "mine"


@pytest.mark.parametrize(
    ("kind", "name", "function", "old", "new"),
    [
        ("loss", "cross_entropy", "log_softmax", "exp(z)", "exp(2 * z)"),
        ("loss", "clipped_cross_entropy", "minimum", "a >= b", "a > b"),
        ("function", "hard_sigmoid_sixth", "maximum", "a <= b", "a < b"),
    ],
)
def test_what_a_definition_calls_is_a_part_of_it(
    kind: str, name: str, function: str, old: str, new: str
) -> None:
    library = Library((), {("function", function): changed("function", function, old, new)})
    assert known_name(library, kind, name).startswith(f"{name}@")


MODEL = """\
model: mine
summary: Drawn.
source: none
sizes: {width: 4}
inputs: {x: {shape: [batch, time, width]}}
layers: {cell: {layer: lstm, units: width, gate: GATE}}
equations: y = cell(x)
targets: {target: {shape: [batch, time, width]}}
loss: mean(squared_error(y, target))
"""


def test_a_function_among_the_attributes_is_known_by_its_meaning() -> None:
    model = {("model", "mine"): MODEL.replace("GATE", "sigmoid")}
    text = changed("function", "sigmoid", "0.5 * x", "0.25 * x")
    (cell, _) = load_spec("mine", (), {**model, ("function", "sigmoid"): text}).program().calls
    meaning = cell.attributes["meaning"]
    assert meaning.name == "lstm"
    assert meaning.functions["gate"].startswith("sigmoid@")
    assert cell.attributes["attributes"]["gate"] == "sigmoid"


def test_a_copy_of_a_function_is_known_by_what_it_copies() -> None:
    text = shipped("function", "sigmoid").replace("function: sigmoid", "function: squash")
    overrides = {
        ("model", "mine"): MODEL.replace("GATE", "squash"),
        ("function", "squash"): text,
    }
    (cell, _) = load_spec("mine", (), overrides).program().calls
    assert cell.attributes["meaning"].functions == {"gate": "sigmoid"}


def test_the_fingerprint_of_a_spec_has_the_nodes_and_not_their_names_for_backends() -> None:
    """Weights stay weights of what they were of: how names are made is not a part of it."""
    overrides = {("model", "mine"): MODEL.replace("GATE", "sigmoid")}
    usual = fingerprint(load_spec("mine", (), overrides))
    renamed = {("function", "sigmoid"): shipped("function", "sigmoid") + "# told\n"}
    assert fingerprint(load_spec("mine", (), {**overrides, **renamed})) == usual


@pytest.mark.parametrize(
    ("case", "told"), [(OTHER[0], "differs: no backend"), (SAME[4], "is equivalent")]
)
def test_every_run_says_whether_a_folder_changes_what_a_name_means(
    case: tuple[str, str, str, str], told: str, tmp_path: Path
) -> None:
    kind, name, old, new = case
    path = tmp_path / FOLDERS[kind] / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(changed(kind, name, old, new))
    library = Library((tmp_path,))
    library.find(kind, name)
    (line,) = notes(library)
    assert told in line


def test_a_backend_may_claim_what_does_not_ship_by_its_checksum() -> None:
    """Whoever else has a layer of that name."""
    text = changed("layer", "lstm", "h = o *", "h = o * o *").replace("layer: lstm", "layer: own")
    other = text.replace("o * o", "o * o * o")
    layers = []
    for one in (text, other):
        model = MODEL.replace("GATE", "sigmoid").replace("layer: lstm", "layer: own")
        overrides = {("model", "mine"): model, ("layer", "own"): one}
        program = load_spec("mine", (), overrides).program()
        layers.append(ClaimableCall.of(program, program.calls[0], "training"))
    assert [layer.definition for layer in layers] == ["own", "own"]
    assert layers[0].checksum != layers[1].checksum
    assert layers[0].checksum == checksum(Library((), {("layer", "own"): text}), "layer", "own")
    assert layers[0].attributes["gate"] == "sigmoid"
