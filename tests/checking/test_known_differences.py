"""Known differences: what an entry matches, that it is strict, and what a file must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT
from wording import Wording

from harness.checking.known_differences import (
    Difference,
    Differences,
    Match,
    draft_entries,
    known_differences,
)
from harness.errors import SpecError
from harness.language.model import load_spec
from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.findings import VERDICTS, Blame, Finding, Verdict

# Its layer down_2.short is a convolution of single entries, of stride 2 and with 4 channels.
PROGRAM = load_spec("resnet").program()
CELL = Cell("lesson6/keras_gru", "keras-jax", "cpu", "float32", "native")
LAYERS = {"gru": "keras.layers.GRU, keras.ops.tanh"}
VERSION = "keras 3.15.1, jax 0.9.0"

ENTRY = """differences:
  mine:
    summary: Adds one.
    reason: Nobody knows.
    versions: keras 3
    link: https://example.org/1
    match: {backend: "keras*", check: gradients}
"""


def entry(**match: Any) -> Differences:
    given = Match(**{"backend": "keras*", **match})
    content = Difference(
        summary="It adds one.", reason="r", versions="3", link="https://example.org", match=given
    )
    return Differences({"adds-one": content})


def applied(known: Differences, verdict: Verdict, check: str = "gradients") -> Finding:
    finding = Finding(check, verdict=verdict)
    known.apply(CellResult(CELL, layers=LAYERS, version=VERSION), finding, PROGRAM)
    return finding


@pytest.mark.parametrize(
    ("match", "meets"),
    [
        ({}, True),
        ({"backend": "keras"}, False),
        ({"backend": "keras-jax"}, True),
        ({"backend": "*"}, True),
        ({"spec": "lesson6/*"}, True),
        ({"spec": "keras_gru"}, False),
        ({"dtype": "float32"}, True),
        ({"dtype": "float64"}, False),
        ({"path": "nat*"}, True),
        ({"path": "equations"}, False),
        ({"device": "c*"}, True),
        ({"device": "cuda"}, False),
        ({"layer": "keras.layers.GRU"}, True),
        ({"layer": "keras.ops.*"}, True),
        ({"layer": "keras.layers.LSTM"}, False),
        ({"check": "grad*"}, True),
        ({"check": "Gradients"}, False),
        ({"check": "outputs"}, False),
        ({"version": "*keras 3.15.*"}, True),
        ({"version": "*keras 3.16.*"}, False),
        ({"spec": "lesson6/*", "dtype": "float32", "check": "loss"}, False),
    ],
)
def test_an_entry_matches_by_all_of_its_patterns(match: dict[str, str], meets: bool) -> None:
    finding = applied(entry(**match), "differ")
    assert finding.verdict == ("known-difference" if meets else "differ")
    assert finding.faults == (["known difference adds-one: It adds one."] if meets else [])


def test_what_is_known_of_a_layer_elsewhere_is_a_hint_and_no_excuse(wording: Wording) -> None:
    elsewhere = {"spec": "another", "check": "offset"}
    found = applied(entry(layer="keras.layers.GRU", **elsewhere), "differ")
    assert found.verdict == "differ"
    wording(found.faults[0])
    assert "keras.layers.GRU" in found.faults[0]
    for match in (
        {"layer": "keras.layers.GRU", "path": "derived"},
        {"layer": "keras.layers.LSTM"},
        elsewhere,
    ):
        assert not applied(entry(**match), "differ").faults


def test_a_difference_that_has_vanished_differs(wording: Wording) -> None:
    finding = applied(entry(), "agree")
    assert finding.verdict == "differ"
    (fault,) = finding.faults
    wording(fault, "known_differences.yaml")
    assert applied(entry(dtype="float64"), "agree").verdict == "agree"


def test_a_difference_that_a_test_shows_need_not_show_at_every_size() -> None:
    content = entry().entries["adds-one"].model_copy(update={"shown_by": "tests/t.py"})
    known = Differences({"adds-one": content})
    assert applied(known, "agree").verdict == "agree"
    assert applied(known, "differ").verdict == "known-difference"


@pytest.mark.parametrize("verdict", [v for v in VERDICTS if v not in ("agree", "differ")])
def test_no_other_verdict_is_excused(verdict: Verdict) -> None:
    finding = applied(entry(), verdict)
    assert finding.verdict == verdict
    assert finding.faults == []


def test_an_entry_that_is_worked_around_excuses_nothing() -> None:
    content = Difference(summary="s", reason="r", versions="v", link="l", shown_by="tests/t.py")
    known = Differences({"around": content})
    assert applied(known, "differ").verdict == "differ"
    assert applied(known, "agree").verdict == "agree"


# --- Entries about gradients of some parameters

AFFECTED = {"definition": "conv2d*", "attributes": {"stride": "[2-9]"}, "shape": "1, 1, [1-7], *"}


def judged(
    check: str,
    wrong: Sequence[str] = (),
    faults: Sequence[str] = (),
    layers: Mapping[str, str] | None = None,
    parameter: Mapping[str, Any] = AFFECTED,
    known: bool = False,
) -> Verdict:
    """The verdict of a finding with these tensors and faults, by the entry of a convolution."""
    match = {"layer": "torch.conv", "parameter": parameter}
    differences = entry(**match)
    ran = {"down_2.short": "torch.conv", "out": "torch.linear"} if layers is None else layers
    result = CellResult(CELL, layers=ran)
    if known:
        result.findings.append(
            Finding("gradients", excuse="known difference adds-one: It adds one.")
        )
    finding = Finding(check, [Deviation(name, 1.0, 1e-7, 1e-6) for name in wrong], list(faults))
    differences.apply(result, finding.judge(), PROGRAM)
    return finding.verdict


SHORT, OTHER = "down_2.short.W", "down_2.conv_1.W"


@pytest.mark.parametrize(
    ("check", "wrong", "faults", "verdict"),
    [
        ("gradients", [f"gradient.{SHORT}"], [], "known-difference"),
        ("initial-values", [f"at the start, gradient.{SHORT}"], [], "known-difference"),
        (
            "repeatability",
            [],
            [f"gradient.{SHORT} of call 3 differs from call 1"],
            "known-difference",
        ),
        ("gradients", [f"gradient.{SHORT}", f"gradient.{OTHER}"], [], "differ"),
        ("gradients", [f"gradient.{OTHER}"], [], "differ"),
        ("outputs", ["output.maps"], [], "differ"),
        ("repeatability", [f"gradient.{SHORT}"], ["output.maps of call 3 differs"], "differ"),
        ("training-sgd", [f"step 1: {SHORT} moved", "step 2: loss"], [], "known-difference"),
        ("training-sgd", [f"step 1: {SHORT} moved", f"step 1: {OTHER} moved"], [], "differ"),
        ("training-sgd", [f"step 2: {SHORT} moved", "step 1: loss"], [], "differ"),
    ],
)
def test_an_entry_about_a_parameter_excuses_its_gradient_alone(
    check: str, wrong: list[str], faults: list[str], verdict: Verdict
) -> None:
    assert judged(check, wrong, faults) == verdict


@pytest.mark.parametrize(
    "parameter",
    [
        {"definition": "dense"},
        {"attributes": {"stride": 1}},
        {"attributes": {"stride": "([2-9], 1)"}},
        {"attributes": {"no_such": "*"}},
        {"shape": "3, 3, *"},
        {"shape": "1, 1, 8, *"},
    ],
)
def test_an_entry_does_not_excuse_a_parameter_of_another_kind(parameter: dict[str, Any]) -> None:
    assert judged("gradients", [f"gradient.{SHORT}"], parameter=AFFECTED) == "known-difference"
    assert judged("gradients", [f"gradient.{SHORT}"], parameter=AFFECTED | parameter) == "differ"


@pytest.mark.parametrize("stride", [2, "(2, 2)", "([2-9], [2-9])"])
def test_a_pattern_of_an_attribute_is_one_value_or_one_for_each_axis(stride: int | str) -> None:
    parameter = AFFECTED | {"attributes": {"stride": stride, "padding": 0, "groups": 1}}
    assert judged("gradients", [f"gradient.{SHORT}"], parameter=parameter) == "known-difference"


def test_an_entry_does_not_excuse_a_parameter_whose_layer_ran_otherwise() -> None:
    ran = {"down_2.short": "equations", "conv": "torch.conv"}
    assert judged("gradients", [f"gradient.{SHORT}"], layers=ran) == "differ"


def test_whole_steps_are_wrong_by_a_gradient_that_is_known_to_be() -> None:
    wrong = ["step 3: loss", f"step 4: {OTHER} moved"]
    assert judged("pipeline-training", wrong) == "differ"
    assert judged("pipeline-training", wrong, known=True) == "known-difference"
    nan = ["step 1: loss is not NaN although all parameters were NaN"]
    assert judged("pipeline-training", wrong, nan, known=True) == "differ"


# --- Files ------------------------------------------------------------------------------------


def test_every_shipped_entry_has_a_reason_a_link_and_a_test() -> None:
    entries = known_differences().entries
    assert entries
    for name, content in entries.items():
        assert content.link.startswith("https://"), name
        assert len(content.reason) > 40, name
        assert any(c.isdigit() for c in content.versions), name
        assert content.shown_by is not None, name
        assert (ROOT / content.shown_by).is_file(), f"{name}: no {content.shown_by}"


def test_a_file_of_the_former_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "differences.yaml").write_text(ENTRY, encoding="utf-8")
    assert known_differences([tmp_path]).entries["mine"].summary == "Adds one."
    newer = ENTRY.replace("Adds one.", "Adds two.")
    (tmp_path / "known_differences.yaml").write_text(newer, encoding="utf-8")
    assert known_differences([tmp_path]).entries["mine"].summary == "Adds two."


def test_a_users_file_adds_and_replaces(tmp_path: Path) -> None:
    shipped = known_differences().entries
    (tmp_path / "known_differences.yaml").write_text(ENTRY, encoding="utf-8")
    found = known_differences([tmp_path / "no-such-folder", tmp_path]).entries
    assert set(found) == {*shipped, "mine"}
    assert found["mine"].match == Match(backend="keras*", check="gradients")
    name = next(iter(shipped))
    (tmp_path / "known_differences.yaml").write_text(ENTRY.replace("mine", name), encoding="utf-8")
    assert known_differences([tmp_path]).entries[name].summary == "Adds one."


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    summary: Adds one.\n", "", "known_differences.yaml:3:5 ... 'summary'"),
        ("link:", "lnk:", "known_differences.yaml:6:5 ... 'lnk'"),
        ("check:", "chek:", "known_differences.yaml:7:32 ... 'chek' ... 'check'"),
        ('backend: "keras*", ', "", "known_differences.yaml:7:12 ... 'backend'"),
        ("versions: keras 3", "versions: 3", "known_differences.yaml:5:15"),
        ("differences:", "difference:", "known_differences.yaml:1:1"),
        ("  mine:\n", "  mine: {\n", "known_differences.yaml"),
        (
            '    match: {backend: "keras*", check: gradients}\n',
            "",
            "known_differences.yaml:2:3 ... 'match' ... 'shown_by'",
        ),
    ],
)
def test_a_wrong_file_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, words: str, wording: Wording
) -> None:
    assert ENTRY.count(old) == 1
    (tmp_path / "known_differences.yaml").write_text(ENTRY.replace(old, new), encoding="utf-8")
    with wording.raises(SpecError, words):
        known_differences([tmp_path])


def test_the_reason_of_an_accepted_difference_is_made_of_whole_sentences(wording: Wording) -> None:
    result = CellResult(Cell("mlp", "torch", "cpu", "float32", "native"), version="torch 2.6")
    result.location = "The result is right if the gates z and r of gru are swapped"
    result.blame = Blame(who="plugin", words="Parameters are handed over in another order.")
    (entry,) = yaml.safe_load(draft_entries(result, ["outputs"]))["differences"].values()
    wording(entry["reason"])
