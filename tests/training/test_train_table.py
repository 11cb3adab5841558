"""Training on arrays of an npz file: batches, proofs, held-out metrics, resuming, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from needed import need
from small_trainings import Stop, Stopping
from wording import Wording

import harness
from harness.cli import cli
from harness.convert import weights
from harness.errors import HarnessError, UsageError
from harness.training.request import Setup, TrainRequest, prepare
from harness.training.run import TrainingRun
from harness.training.table import TableFeed

SPEC = """
model: squares
summary: Which of two classes a row is of, by a layer with dropout.
source: A test.
sizes: {features: 3, labels: 2}
inputs:
  x: {shape: [batch, features]}
  kept: {shape: [batch, features], boolean: true}
layers:
  drop: {layer: dropout, keep: 0.75}
  out: {layer: dense, units: labels}
equations: logits = out(drop(where(kept, x, 0)))
targets:
  label: {shape: [batch], index: labels}
loss: mean(sparse_cross_entropy(logits, label))
metrics:
  accuracy: mean(accuracy(logits, label))
optimizer: {optimizer: adam, learning_rate: 0.01}
training:
  batch: 8
  shuffle: true
  phases:
    - {epochs: 2, learning_rate: 0.05}
data: {npz: rows.npz, arrays: {x: values}}
"""


SAID = "data: {npz: rows.npz, arrays: {x: values}}"


def arrays(rows: int = 70) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, 3))
    label = (values[:, 0] > 0).astype(np.uint8)
    return {"values": values, "label": label, "kept": np.ones((rows, 3), np.bool_)}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "squares.yaml").write_text(SPEC)
    np.savez(tmp_path / "rows.npz", **arrays())
    return tmp_path / "squares.yaml"


def setup(spec: Path, **changes: Any) -> Setup:
    given = {"backend": "numpy", "held_out": 0.3, "proof": False}
    return prepare(TrainRequest(str(spec), **{**given, **changes}))


def test_a_training_is_proved_and_told_of_with_its_accuracy(spec: Path) -> None:
    made = harness.train(spec, "numpy", epochs=4, held_out=0.3, dtype="float64")
    proof = made.weights.history["proof"]
    assert proof["steps"] == 3
    first, *_, last = made.history
    assert last["held_out_metrics"]["accuracy"] > 0.85
    assert last["held_out_loss"] < first["held_out_loss"]


def test_the_same_numbers_come_of_two_backends(spec: Path) -> None:
    need("torch")
    one, two = (
        harness.train(spec, name, held_out=0.3, dtype="float64", proof=False).history
        for name in ("numpy", "torch")
    )
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
        assert a["held_out_loss"] == pytest.approx(b["held_out_loss"], rel=1e-12)


def test_batches_have_the_rows_of_the_file_and_the_noise_of_their_step(spec: Path) -> None:
    made = setup(spec)
    rows = made.feed.epoch(0)[:2]
    first, other = (made.feed.batch(one, step=n) for n, one in enumerate(rows))
    both = made.feed.batch(np.stack(rows), step=0)
    for name, array in both.items():
        np.testing.assert_array_equal(array, np.stack([first[name], other[name]]))
    np.testing.assert_array_equal(first["input.x"], np.float32(arrays()["values"][rows[0]]))
    assert first["target.label"].dtype == np.int64
    assert first["input.kept"].dtype == np.bool_
    assert not np.array_equal(first["input.drop.kept"], other["input.drop.kept"])
    assert "input.drop.kept" not in made.feed.batch(rows[0])
    assert isinstance(made.feed, TableFeed)
    held = np.concatenate(list(made.feed.held_out()))
    assert held.tolist() == list(range(49, 49 + 16))


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(spec: Path, tmp_path: Path) -> None:
    made = setup(spec, epochs=3)
    with TrainingRun(made, tmp_path / "whole") as whole:
        whole.run()
    with TrainingRun(made, tmp_path / "cut", Stopping(1, 1)) as cut, pytest.raises(Stop):
        cut.run()
    with TrainingRun(made, tmp_path / "cut") as cut:
        cut.run(resume=True)
    one, two = (weights.load(tmp_path / name) for name in ("whole", "cut"))
    for name, array in one.parameters.items():
        np.testing.assert_array_equal(array, two.parameters[name])
    np.savez(tmp_path / "rows.npz", **arrays(71))
    with (
        TrainingRun(setup(spec, epochs=4), tmp_path / "cut") as other,
        pytest.raises(UsageError, match="made with other data"),
    ):
        other.run(resume=True)


def graphs(rows: int = 40) -> dict[str, np.ndarray]:
    """Nodes of graphs that have the same edges: those of one class are joined."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (rows, 12))
    values = random.normal(size=(rows, 12, 5)) + label[..., None]
    edges = {"sender": random.integers(0, 12, 30), "receiver": random.integers(0, 12, 30)}
    return {"x": values, "label": label, **edges}


def test_what_has_no_batch_is_the_same_for_all_rows(tmp_path: Path) -> None:
    """The edges of a graph, whole in each batch and in each of the steps of one call."""
    need("torch")
    given = graphs()
    np.savez(tmp_path / "graphs.npz", **given)
    made = setup(Path("gcn"), data=tmp_path / "graphs.npz")
    rows = made.feed.epoch(0)[0]
    assert made.feed.rows == 28
    one, several = made.feed.batch(rows), made.feed.batch(np.stack([rows, rows]))
    for name in ("sender", "receiver"):
        np.testing.assert_array_equal(one[f"input.{name}"], given[name])
        np.testing.assert_array_equal(several[f"input.{name}"], np.stack([given[name]] * 2))
    np.testing.assert_array_equal(one["target.label"], given["label"][rows])
    histories = [
        harness.train("gcn", name, data=tmp_path / "graphs.npz", epochs=3, dtype="float64").history
        for name in ("numpy", "torch")
    ]
    for a, b in zip(*histories, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
    assert histories[0][-1]["loss"] < histories[0][0]["loss"]


def test_rows_are_the_first_axis(tmp_path: Path, wording: Wording) -> None:
    text = SPEC.replace("x: {shape: [batch, features]}", "x: {shape: [features, batch]}")
    text = text.replace("where(kept, x, 0)", "where(kept, permute_dims(x, axes=[1, 0]), 0)")
    (tmp_path / "squares.yaml").write_text(text)
    np.savez(tmp_path / "rows.npz", **{**arrays(), "values": arrays()["values"].T})
    with wording.raises(UsageError, "'batch'"):
        setup(tmp_path / "squares.yaml")


def test_another_file_can_be_named(spec: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "more.npz", **arrays(90))
    assert setup(spec, data=tmp_path / "more.npz").feed.total == 90


def test_a_spec_that_says_nothing_of_training_or_data_is_trained(
    spec: Path, tmp_path: Path, wording: Wording
) -> None:
    """In shuffled batches, at the optimizer's own rate, on arrays of the model's own names."""
    silent = SPEC.replace(SAID, "")
    spec.write_text(silent[: silent.index("training:")])
    named = {"x" if name == "values" else name: a for name, a in arrays().items()}
    np.savez(tmp_path / "mine.npz", **named)
    made = setup(spec, data=tmp_path / "mine.npz", batch=None)
    assert list(made.rates) == [0.01]
    assert (made.recipe.batch, made.recipe.order, made.recipe.whole_only) == (32, "shuffled", False)
    command = ["train", str(spec), "--backend", "numpy", "--data", str(tmp_path / "mine.npz")]
    run = CliRunner().invoke(cli, [*command, "--epochs", "3", "--held-out", "0.2"])
    assert run.exit_code == 0, run.output
    wording.line(run.stderr, "'training'")
    assert "epoch 3" in run.output


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"label": None}, "'label' ... 'label'"),
        ({"values": np.ones((70, 4))}, "1 ... 3 ... 4"),
        ({"label": np.ones((70, 4), np.int64)}, "[batch] ... [70, 4]: 2"),
        ({"values": np.ones((69, 3))}, "0 ... 69 ... 70"),
        ({"values": np.full((70, 3), np.nan)}, ""),
        ({"values": np.ones((70, 3), np.bool_)}, ""),
        ({"label": np.full(70, 2)}, "target.label[0] ... 2 ... 0 ... 1"),
        ({"label": np.zeros(70)}, "float64"),
        ({"kept": np.ones((70, 3))}, "float64"),
        ({"values": np.array([{}])}, ""),
    ],
)
def test_what_a_file_holds_is_checked(
    spec: Path, tmp_path: Path, changed: dict[str, Any], told: str, wording: Wording
) -> None:
    given = {n: a for n, a in {**arrays(), **changed}.items() if a is not None}
    np.savez(tmp_path / "rows.npz", **given)
    with pytest.raises(HarnessError) as error:
        setup(spec)
    wording.line(error.value, told)
    assert "rows.npz" in str(error.value)


def test_a_file_that_is_none_is_refused(spec: Path, tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "rows.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with wording.raises(UsageError):
        setup(spec)
    (tmp_path / "rows.npz").unlink()
    with wording.raises(UsageError, "24 ... rows.npz"):
        setup(spec)


@pytest.mark.parametrize(
    ("old", "new", "changes", "told"),
    [
        ("rows.npz", "../rows.npz", {}, ""),
        ("rows.npz", "/etc/passwd", {}, ""),
        ("{x: values}", "{y: values}", {}, "'y' ... nor"),
        (SAID, "", {}, "'data'"),
        (SAID, "", {}, "--data FILE"),
        (SAID, "", {"data": Path("r"), "text": "builtin"}, ""),
        ("", "", {"text": "builtin"}, "--text"),
        ("batch: 8", "batch: 80\n  whole_batches: true", {}, "49"),
    ],
)
def test_a_wrong_request_is_refused(
    spec: Path, old: str, new: str, changes: dict[str, Any], told: str, wording: Wording
) -> None:
    spec.write_text(SPEC.replace(old, new, 1) if old else SPEC)
    with pytest.raises(HarnessError) as error:
        setup(spec, **changes)
    wording.line(error.value, told)
