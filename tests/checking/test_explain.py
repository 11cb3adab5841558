"""What ``harness explain`` says of a spec."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from wording import Wording

from harness.checking.explain import explain
from harness.errors import HarnessError
from harness.language.library import lesson6
from harness.worker.launch import Launch

DENSE = """model: dense_only
summary: One dense layer.
source: Made for a test.
sizes: {inside: 5, outside: 7}
inputs:
  x: {shape: [batch, inside]}
layers:
  out: {layer: dense, units: outside}
equations: y = out(x)
targets:
  aim: {shape: [batch, outside]}
loss: mean(squared_error(y, aim))
"""


NORMALISED = """model: normalised
summary: Batch norms with a momentum of torch, one that a block hands on, and a usual one.
source: Made for a test.
sizes: {wide: 4}
inputs:
  x: {shape: [batch, wide]}
layers:
  norm: {layer: batch_norm, momentum: 0.1}
  block: {layer: own_block, pace: 0.2}
  usual: {layer: batch_norm, momentum: 0.9}
equations: y = usual(block(norm(x)))
targets:
  aim: {shape: [batch, wide]}
loss: mean(squared_error(y, aim))
"""


OWN_BLOCK = """layer: own_block
summary: A batch norm by another name.
source: Made for a test.
inputs: {x: [..., features]}
attributes: {pace: 0.9}
layers:
  norm: {layer: batch_norm, momentum: pace}
equations: y = norm(x)
output: y
"""


def squeezed(text: str) -> str:
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.splitlines())


@pytest.fixture(scope="module")
def lstm() -> str:
    return squeezed(explain("lesson6/stateful_lstm", [], {}, []).text())


def test_parameters_and_totals_of_the_stateful_lstm(lstm: str) -> None:
    table = lstm.partition("\nparameters\n")[2].partition("\n\n")[0].splitlines()
    assert table[-1] == "total 332,058 (331,974 trained)"
    assert "embed 3,612" in table
    assert "norm 168" in table
    assert "lstm 306,176" in table
    assert "out 22,102" in table
    assert "lstm.W_i [42, 256] 10,752 glorot_uniform, drawn with block lstm.W" in table
    assert "norm.moving_mean [42] 42 zeros (statistic)" in table
    assert "embed.table [86, 42] 3,612 uniform(low -0.05, high 0.05)" in table
    numbers = [int(re.split(r"[\]] ", row)[1].split()[0].replace(",", "")) for row in table[:-5]]
    assert sum(numbers) == 332_058


def test_stripes_are_shown() -> None:
    text = squeezed(explain("lesson6/theano_gru_combined", [], {}, []).text())
    assert "gru.K_n [342, 256] 87,552 identity over normal(std 1)" in text


def test_what_goes_in_and_out(lstm: str, wording: Wording) -> None:
    wording.line(lstm, "86 ... 42 ... 256 ... 64 ... 8")
    wording.line(lstm, "[batch, time]")
    wording.line(lstm, "index [batch, time]")
    assert "state c [batch, hidden]" in lstm
    assert "outputs next_chars [batch, time, vocab]" in lstm


def test_the_listing_has_every_call_and_the_loop(lstm: str, wording: Wording) -> None:
    for line in ("embed: embedding", "norm: batch_norm", "lstm: lstm", "out: dense"):
        assert line in lstm.splitlines()
    assert re.search(r"= scan over time\n", lstm)
    assert re.search(r"lstm/g = tanh\(%\d+\) \[batch, hidden\]", lstm)
    assert re.search(r"loss mean\(sparse_cross_entropy\(logits, target\)\)", lstm)
    assert "optimizer adam_epsilon_hat (" in lstm
    wording.line(lstm, "4 ... 0.001, 4 ... 0.0001, 4 ... 0.0001")


def test_operations_of_a_dense_model_by_hand(tmp_path: Path, wording: Wording) -> None:
    """Forward: 2 x 4 x 5 x 7. Backward: the same for W, and for x, each."""
    path = tmp_path / "dense_only.yaml"
    path.write_text(DENSE, encoding="utf-8")
    text = squeezed(explain(str(path), [], {"batch": 4}, []).text())
    wording.line(text, "4, time 8")
    wording.line(text, f"forward ... loss {2 * 4 * 5 * 7}")
    wording.line(text, f"derived ... {3 * 2 * 4 * 5 * 7}")


def test_operations_grow_with_time_and_sizes_can_be_given() -> None:
    def products(**sizes: int) -> int:
        text = explain("lesson6/keras_gru", [], sizes, []).text()
        found = re.search(r"forward and loss +([\d,]+) in products", text)
        assert found is not None
        return int(found[1].replace(",", ""))

    # Three gates of an input and a state, and the dense layer, a step.
    step = 2 * 2 * (3 * 86 * 16 + 3 * 16 * 16 + 16 * 86)
    assert products(batch=2, time=1, hidden=16) == step
    assert products(batch=2, time=5, hidden=16) == 5 * step


@pytest.mark.parametrize("name", lesson6())
def test_every_model_can_be_explained(name: str) -> None:
    text = explain(name, [], {"hidden": 7}, []).text()
    assert text.startswith(f"{name}: ")
    for title in ("inputs and outputs", "parameters", "program", "training", "operations at"):
        assert f"\n\n{title}" in text


def test_a_backends_paths_are_asked_for() -> None:
    text = squeezed(explain("lesson6/simple_rnn", [], {}, [Launch("numpy")]).text())
    assert text.partition("\n\npaths\n")[2].splitlines() == [
        "numpy embed equations",
        "numpy rnn equations",
        "numpy out equations",
        "numpy sparse_cross_entropy equations",
        "numpy optimizer equations",
    ]


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("lesson6/simple_rn", {}, "'lesson6/simple_rnn'"),
        ("lesson6/simple_rnn", {"hiden": 3}, "'hidden'"),
    ],
)
def test_wrong_names_are_told(
    name: str, sizes: dict[str, int], words: str, wording: Wording
) -> None:
    with wording.raises(HarnessError, words):
        explain(name, [], sizes, []).text()


def test_a_program_reads_what_explain_says(lstm: str) -> None:
    (found,) = json.loads(json.dumps(explain("lesson6/stateful_lstm", [], {"time": 5}, []).data()))
    assert (found["kind"], found["name"]) == ("model", "lesson6/stateful_lstm")
    assert found["sizes"] == {"vocab": 86, "factors": 42, "hidden": 256, "batch": 64, "time": 5}
    assert found["inputs"] == {"chars": "index [batch, time] below vocab"}
    shapes = {each["name"]: each["shape"] for each in found["parameters"] if each["trained"]}
    assert shapes["lstm.W_i"] == [42, 256]
    assert sum(math.prod(shape) for shape in shapes.values()) == 331_974
    told = squeezed("\n".join(found["program"]))
    assert told == lstm.partition("\nprogram\n")[2].partition("\n\n")[0]
    assert found["operations"]["forward_and_loss"]["products"] > 0
    # Of another definition it is what its file says.
    (layer,) = explain("gru", [], {}, []).data()
    assert (layer["kind"], layer["parameters"]["W_z"]["shape"]) == ("layer", ["features", "units"])
    assert "lesson6/keras_gru" in layer["models"]
    (law,) = explain("uniform", [], {}, []).data()
    assert (law["kind"], law["arguments"]) == ("initializer", ["low", "high"])


def test_all_outputs_of_a_definition_are_shown(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    text = """\
layer: halves
summary: Both halves.
source: A test.
inputs: {x: [batch, features]}
equations: |
  first = x[:, :2]
  second = x[:, 2:]
output: [first, second]
"""
    (tmp_path / "layers" / "halves.yaml").write_text(text)
    assert "output: [first, second]" in explain("halves", [tmp_path], {}, []).text().splitlines()


def test_an_unusual_attribute_is_noted_once_at_its_place(tmp_path: Path) -> None:
    """Torch's momentum 0.1 is the weight of the new statistics, not of the old."""
    (file := tmp_path / "n.yaml").write_text(NORMALISED)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "own_block.yaml").write_text(OWN_BLOCK)
    told: list[str] = []
    (found,) = explain(str(file), [tmp_path], {}, [], note=told.append).data()
    assert [text.partition(" of ")[0] for text in told] == [
        f"{file}:8:39: momentum 0.1",
        f"{file}:9:18: momentum 0.2",
    ]
    assert "0.9 here" in told[0]
    assert found["notes"] == told
    explain(str(file), [tmp_path], {}, [], note=told.append)
    assert told[2:] == told[:2]
    assert "notes" not in explain("lesson6/stateful_lstm", [], {}, []).data()[0]
