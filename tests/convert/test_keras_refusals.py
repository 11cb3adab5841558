"""What a .keras file cannot be written of, or read from, and what a person is told then."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from format_cases import Case, changed, refused, written
from needed import need

import harness
from harness.convert.formats import launch
from harness.program.serial import encode
from harness.worker.worker import Worker

need("keras", "tensorflow")

import h5py  # noqa: E402

LSTM = "lesson6/stateful_lstm"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(launch("keras", environment={"KERAS_BACKEND": "tensorflow"})) as started:
        yield started


@pytest.fixture
def saved(worker: Worker, tmp_path: Path) -> tuple[Case, Path]:
    """An LSTM with batch normalisation and state, and its file."""
    case, path = Case.of(harness.load(LSTM), "float32"), tmp_path / "lstm.keras"
    written(worker, case, path)
    return case, path


def _other(members: dict[str, bytes]) -> None:
    members["harness.json"] = json.dumps({"spec": "lesson6/simple_rnn"}).encode()


def _renamed(members: dict[str, bytes]) -> None:
    members["config.json"] = members["config.json"].replace(b'"lstm"', b'"memory"')


def _narrow(members: dict[str, bytes]) -> None:
    config = members["config.json"].decode().replace('"units": 11', '"units": 3')
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        for name, width in (("0", (7, 3)), ("1", (3,))):
            del file[f"layers/dense/vars/{name}"]
            file[f"layers/dense/vars/{name}"] = np.zeros(width, np.float32)
    members |= {"config.json": config.encode(), "model.weights.h5": buffer.getvalue()}


def _foreign(members: dict[str, bytes]) -> None:
    members["config.json"] = members["config.json"].replace(b"hard_sigmoid_fifth", b"mish_of_mine")


def _damaged(members: dict[str, bytes]) -> None:
    members["config.json"] = members["config.json"].replace(b'"LSTM"', b'"LTSM"')


def _no_weights(members: dict[str, bytes]) -> None:
    del members["model.weights.h5"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other, "has weights of lesson6/simple_rnn, not of lesson6/stateful_lstm"),
        (
            _renamed,
            "has no layer 'lstm', which should have lstm of lesson6/stateful_lstm; it has",
        ),
        (_narrow, "layer 'out' must have kernel of shape [7, 11], float32 or float64"),
        (_foreign, "has mish_of_mine, which neither Keras nor an export"),
        (_damaged, "layer 'lstm' must be a LSTM; found a LTSM"),
        (_no_weights, "cannot be read as a .keras file: it has no model.weights.h5"),
    ],
)
def test_a_file_of_something_else_is_refused(
    worker: Worker,
    saved: tuple[Case, Path],
    change: Callable[[dict[str, bytes]], None],
    words: str,
) -> None:
    case, path = saved
    training = encode(case.exported.training)
    assert words in refused(worker, "read", path=str(changed(path, change)), training=training)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.h5", b"", "cannot be read as a .keras file"),
        ("model.keras", b"something else", "cannot be read as a .keras file"),
        ("model.keras", None, "cannot be read as a .keras file: no such file"),
    ],
)
def test_what_is_no_keras_file_is_refused(
    worker: Worker, saved: tuple[Case, Path], name: str, content: bytes | None, words: str
) -> None:
    case, path = saved
    path = path.with_name(name)
    if content is not None:
        path.write_bytes(content)
    training = encode(case.exported.training)
    assert words in refused(worker, "read", path=str(path), training=training)


def test_outputs_need_the_module(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved
    inputs, state = case.batch(3, 4)
    path.with_suffix(".py").unlink()
    cause = refused(worker, "outputs", path=str(path), inputs=inputs, state=state)
    assert "there is no lstm.py" in cause


def test_nothing_but_the_module_stands_for_it(worker: Worker, saved: tuple[Case, Path]) -> None:
    """The process that wrote the function knows it, and is not to take its own."""
    case, path = saved
    inputs, state = case.batch(3, 4)
    path.with_suffix(".py").write_text("import keras\n")
    cause = refused(worker, "outputs", path=str(path), inputs=inputs, state=state)
    assert "Could not locate function" in cause


def test_a_module_of_somebody_else_is_left_alone(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved
    module = path.with_name("train.py")
    module.write_text("print('mine')\n")
    payload = case.exported.payload()
    cause = refused(worker, "write", exported=payload, path=str(module.with_suffix(".keras")))
    assert "was not written by an export" in cause
    assert module.read_text() == "print('mine')\n"
    assert not module.with_suffix(".keras").exists()
    # One of ours is written anew.
    assert written(worker, case, path) == [path, path.with_suffix(".py")]


def test_a_module_must_have_a_name_that_python_imports(
    worker: Worker, saved: tuple[Case, Path]
) -> None:
    case, path = saved
    payload = {"exported": case.exported.payload(), "path": str(path.with_name("lstm-2.keras"))}
    assert "lstm-2.py cannot be imported" in refused(worker, "write", **payload)


def test_a_layer_that_no_output_needs_has_no_place(
    worker: Worker, saved: tuple[Case, Path]
) -> None:
    case, path = saved
    inference = case.exported.inference
    exported = replace(case.exported, inference=replace(inference, outputs=inference.outputs[:1]))
    exported = replace(exported, inference=replace(exported.inference, new_state=()))
    cause = refused(worker, "write", exported=exported.payload(), path=str(path))
    assert "no output depends on lstm" in cause
