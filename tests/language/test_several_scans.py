"""Layers of several loops: their outputs and last states by name, in equations that follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from needed import need
from two_paths import by_oracle
from wording import Wording

import harness
from harness.checking.explain_definition import Definitions
from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.language.model import Spec, load_spec
from harness.program.ir import walk_nodes

LAYER = """\
layer: both_ways
summary: Running sums from either end.
source: A test.
inputs: {x: [batch, time, features]}
attributes: {keep: 0.5}
state:
  left: {shape: [batch, features]}
  right: {shape: [batch, features]}
scans:
  ahead: {over: {x_t: x}, carries: [left], step: left = keep * left + x_t, output: left}
  back:
    over: {x_t: x}
    carries: [right]
    reverse: true
    step: |
      more = 2 * x_t
      right = right + more
    output: right
equations: |
  more = left - right
  y = concat([ahead, back], axis=-1) + concat([more, more], axis=-1)[:, None]
output: y
"""
MODEL = """\
model: own
summary: Both ways.
source: A test.
sizes: {features: 2}
inputs:
  x: {shape: [batch, time, features]}
layers:
  read: {layer: both_ways}
equations: y, left, right = read(x)
targets:
  z: {shape: [batch, time, 2 * features]}
loss: mean(squared_error(y, z))
"""


def own(text: str = LAYER) -> Spec:
    return load_spec("own", overrides={("model", "own"): MODEL, ("layer", "both_ways"): text})


def test_equations_read_outputs_and_last_states_by_name() -> None:
    spec = own()
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    ahead, back = np.zeros((2, 3, 5, 2))
    left, right = np.zeros((2, 3, 2))
    for step in range(5):
        ahead[:, step] = left = 0.5 * left + x[:, step]
        back[:, 4 - step] = right = right + 2 * x[:, 4 - step]
    given = {"inputs": {"x": x}, "targets": {"z": np.zeros((3, 5, 4))}, "state": {}}
    given |= {"parameters": {}, "statistics": {}}
    found = by_oracle(spec.program(), given, {"batch": 3, "time": 5})
    more = np.concatenate([left - right, left - right], -1)[:, None]
    np.testing.assert_allclose(found["output.y"], np.concatenate([ahead, back], -1) + more)
    np.testing.assert_allclose(found["output.left"], left)
    np.testing.assert_allclose(found["output.right"], right)


def test_the_order_of_scans_is_no_part_of_what_a_layer_means() -> None:
    def meaning(text: str) -> str:
        library = Library(overrides={("layer", "both_ways"): text})
        return checksum(library, "layer", "both_ways")

    head, _, rest = LAYER.partition("  ahead:")
    ahead, _, rest = rest.partition("  back:")
    back, _, after = rest.partition("equations:")
    assert meaning(f"{head}  back:{back}  ahead:{ahead}equations:{after}") == meaning(LAYER)
    for old, new in (
        ("reverse: true", "reverse: false"),
        ("output: right", "output: more"),
        ("left - right", "right - left"),
        ("[ahead, back]", "[back, ahead]"),
        ("keep * left + x_t", "keep * left - x_t"),
    ):
        assert old in LAYER
        assert meaning(LAYER.replace(old, new)) != meaning(LAYER), new


@pytest.mark.parametrize("name", ["bidirectional_lstm", "bidirectional_gru_reset_after"])
def test_what_ships_is_two_layers_of_one_direction(name: str) -> None:
    one = name.removeprefix("bidirectional_")
    both = MODEL.replace("both_ways", f"{name}, units: features")
    two = MODEL.replace("{layer: both_ways}", f"{{layer: {one}, units: features}}").replace(
        "layers:\n", f"layers:\n  turned: {{layer: {one}, units: features}}\n"
    )
    first = both.replace("y, left, right = read(x)", "y = read(x)")
    other = two.replace(
        "y, left, right = read(x)", "y = concat([read(x), reverse(turned(reverse(x)))], axis=-1)"
    )
    values = []
    random = np.random.default_rng(1)
    given = {"inputs": {"x": random.normal(size=(2, 4, 2))}, "state": {}, "statistics": {}}
    given["targets"] = {"z": random.normal(size=(2, 4, 4))}
    whole = load_spec("own", overrides={("model", "own"): first})
    arrays = {
        port.name: random.normal(size=whole.program().shape(port))
        for port in whole.program().parameters
    }
    apart = {
        name.replace("read.back_", "turned.") if "back_" in name else name: array
        for name, array in arrays.items()
    }
    for text, parameters in ((first, arrays), (other, apart)):
        spec = load_spec("own", overrides={("model", "own"): text})
        found = by_oracle(
            spec.program(), {**given, "parameters": parameters}, {"batch": 2, "time": 4}
        )
        values.append((found["output.y"], float(found["loss"])))
    np.testing.assert_array_equal(values[0][0], values[1][0])
    assert values[0][1] == values[1][1]
    scans = [n for n in walk_nodes(whole.program().nodes) if n.op == "scan"]
    assert [scan.reverse for scan in scans] == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("carries: [right]", "carries: []", "'right' ... 'carries'"),
        ("carries: [right]", "carries: [rihgt]", "'rihgt' ... 'state'"),
        ("carries: [right]", "carries: [left]", "'left' ... 'ahead'"),
        ("[ahead, back]", "[ahead, ahead]", "'back'"),
        ("  ahead:", "  x:", "'x'"),
        ("right = right + more", "right = right + left", "'left'"),
        ("y = concat", "left = concat", "'left'"),
        ("more = 2 * x_t", "more = 2 * right", "'x_t'"),
        ("{x_t: x}, carries: [left]", "{x_t: y}, carries: [left]", "'y'"),
        ("output: left}", "output: letf}", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    old: str, new: str, told: str, wording: Wording
) -> None:
    assert old in LAYER
    with pytest.raises(SpecError) as error:
        own(LAYER.replace(old, new))
    wording.line(error.value, told)
    assert error.value.place is not None


def test_scans_stand_beside_equations(wording: Wording) -> None:
    alone = LAYER[: LAYER.index("equations:")]
    with pytest.raises(SpecError, match="'equations'"):
        own(alone + "output: y\n")
    inside = LAYER.replace("equations:", "layers:\n  out: {layer: dense, units: 2}\nequations:")
    with wording.raises(SpecError, "'layers' need ... 'equations' ... 'scans'"):
        own(inside)


def test_each_loop_is_explained_by_its_name(wording: Wording) -> None:
    text = Definitions.of("bidirectional_lstm", Library()).text()
    wording.line(text, "the first (x_t")
    wording.line(text, "back: back_h of")


def test_the_example_agrees(tmp_path: Path) -> None:
    need("torch")
    (tmp_path / "layers").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "layers" / "both_ways.yaml").write_text(LAYER)
    (tmp_path / "models" / "own.yaml").write_text(MODEL)
    report = harness.check(
        "own", ["numpy", "torch"], folders=tmp_path, checks="values", paths=("native", "derived")
    )
    assert report.agrees, str(report)
