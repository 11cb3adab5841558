"""Data sets with a name: what they hold, what learns from them, and what is said without them."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from wording import Wording

import harness
from harness.api.training import Trained
from harness.errors import HarnessError, UsageError
from harness.training import table
from harness.training.request import TrainRequest, prepare

SPEC = """
model: digit
summary: A digit from its pixels, by one layer.
source: A test.
sizes: {pixels: 64, classes: 10}
inputs:
  x: {shape: [batch, pixels]}
layers:
  out: {layer: dense, units: classes}
equations: logits = out(x)
targets:
  target: {shape: [batch], index: classes}
loss: mean(sparse_cross_entropy(logits, target))
metrics:
  accuracy: mean(accuracy(logits, target))
optimizer: {optimizer: adam, learning_rate: 0.01}
training:
  batch: 32
  shuffle: true
  phases:
    - {epochs: 5, learning_rate: 0.01}
data: {set: digits, arrays: {x: pixels, target: label}}
"""
carried = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "digit.yaml").write_text(SPEC)
    return tmp_path / "digit.yaml"


@carried
def test_digits_are_those_of_the_package_in_the_forms_that_models_take() -> None:
    found = table.data_set("digits")
    assert {name: array.shape for name, array in found.items()} == {
        "pixels": (1797, 64),
        "images": (1797, 8, 8, 1),
        "images_rgb": (1797, 8, 8, 3),
        "images_32": (1797, 32, 32, 1),
        "label": (1797,),
    }
    assert np.bincount(found["label"]).tolist() == [
        *(178, 182, 177, 183, 181),
        *(182, 181, 179, 174, 180),
    ]
    assert (found["pixels"].min(), found["pixels"].max()) == (0, 1)
    image = found["pixels"].reshape(-1, 8, 8)
    np.testing.assert_array_equal(found["images"][..., 0], image)
    np.testing.assert_array_equal(found["images_rgb"], np.stack([image] * 3, axis=-1))
    np.testing.assert_array_equal(found["images_32"][:, 2::4, 3::4, 0], image)
    np.testing.assert_array_equal(found["images_32"][:, 1::4, ::4, 0], image)


@carried
def test_a_layer_learns_digits_that_it_has_not_seen(spec: Path) -> None:
    made = harness.train(spec, "numpy", held_out=0.2, proof=False)
    first, *_, last = made.history
    assert last["held_out_loss"] < 0.6 < 1 < first["held_out_loss"]
    assert last["held_out_metrics"]["accuracy"] > 0.85
    assert "held-out accuracy" in str(made)
    assert f"{last['held_out_metrics']['accuracy']:.4f}" in str(made).splitlines()[-1]
    assert f"{last['held_out_metrics']['accuracy']:.4f}" in made._repr_html_()


@carried
@pytest.mark.parametrize("name", ["lenet", "resnet", "vit", "vae"])
def test_the_models_of_images_that_ship_take_it(name: str) -> None:
    setup = prepare(TrainRequest(name, "numpy", held_out=0.2))
    assert setup.data.name == "digits"
    assert setup.feed.total == 1797
    assert len(list(setup.feed.held_out())) >= 3


def test_a_file_may_stand_in_for_it(spec: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", pixels=np.ones((70, 64)), label=np.zeros(70, np.int64))
    setup = prepare(TrainRequest(str(spec), "numpy", data=tmp_path / "own.npz"))
    assert setup.feed.total == 70


def test_without_the_package_it_is_said_what_to_install(
    spec: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        prepare(TrainRequest(str(spec), "numpy"))
    wording(error.value)
    assert "--data FILE" in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, ""),
        (b"not packed", ""),
        (gzip.compress(b"1,2,many\n", mtime=0), ""),
        (
            gzip.compress(b"1,2,3\n4,5,6\n", mtime=0),
            "'digits'",
        ),
    ],
    ids=["absent", "not packed", "no numbers", "others"],
)
def test_other_data_in_its_place_are_refused(
    spec: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    told: str,
    wording: Wording,
) -> None:
    if content is not None:
        (tmp_path / table.FILE).parent.mkdir(parents=True)
        (tmp_path / table.FILE).write_bytes(content)
    place = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(table, "find_spec", lambda name: place)
    with pytest.raises(HarnessError) as error:
        prepare(TrainRequest(str(spec), "numpy"))
    wording.line(str(error.value).lower(), told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("set: digits", "set: digit", "'digits' ... 'digit'"),
        ("x: pixels", "x: pixel", "'pixel' ... 'x'"),
        ("x: pixels", "x: images", ""),
        ("x: pixels, ", "", "'x' ... 'x'"),
    ],
)
@carried
def test_what_a_spec_says_of_it_is_checked(
    spec: Path, old: str, new: str, told: str, wording: Wording
) -> None:
    spec.write_text(SPEC.replace(old, new))
    with pytest.raises(HarnessError) as error:
        prepare(TrainRequest(str(spec), "numpy"))
    wording.line(error.value, told)


def test_a_training_without_metrics_has_no_column_of_them() -> None:
    entry = {"epoch": 1, "learning_rate": 0.1, "loss": 2.0, "held_out_loss": None}
    entry |= {"held_out_metrics": {}, "characters_per_second": 1.0}
    weights = SimpleNamespace(spec="a", history={"backend": "numpy", "epochs": [entry]})
    assert str(Trained(weights)).splitlines()[1].split() == [  # type: ignore[arg-type]
        *("epoch", "learning", "rate", "loss"),
        *("held-out", "loss", "characters/s"),
    ]
