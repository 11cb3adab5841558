""".keras files: Keras alone gives the oracle's outputs on each engine, and weights come back."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exporting import ODD
from format_cases import (
    ALLOWED,
    SMALL,
    Case,
    assert_comes_back,
    assert_same,
    changed,
    error,
    everything,
    outputs,
    read,
    written,
)
from needed import need
from random_weights import SPEC, write_random_weights
from sampling import sampled

import harness
from harness.command.declared import make_options
from harness.convert.console import run_export
from harness.convert.formats import launch
from harness.convert.request import ExportOptions
from harness.language.library import lesson6
from harness.worker.worker import Worker

ENGINES = ("tensorflow", "torch", "jax")
need("keras", *ENGINES)

import h5py  # noqa: E402

LSTM = "lesson6/stateful_lstm"
# Layers of Keras alone; a function of its own; a class of its own.
SAMPLE = ("lesson6/simple_rnn", LSTM, "lesson6/theano_gru_combined")
WITH_MODULE = {
    LSTM: "def hard_sigmoid_fifth",
    "lesson6/keras_gru": "def hard_sigmoid_fifth",
    "lesson6/theano_rnn": "class SimpleRnnTwoBiases",
    "lesson6/theano_gru_combined": "class GruConcatenated",
}
# What a user writes; every argument is a folder with a file and its arrays. At the end, training of
# a sort: every trained weight is doubled, and the model is saved anew.
SCRIPT = """
import importlib, sys
from pathlib import Path
import keras
import numpy as np
engine = keras.backend.backend()
for folder in map(Path, sys.argv[1:]):
    if (folder / "model.py").exists():
        sys.path.insert(0, str(folder))
        importlib.import_module("model")
        del sys.path[0], sys.modules["model"]
    model = keras.models.load_model(folder / "model.keras")
    given = dict(np.load(folder / "given.npz"))
    made = model(given) if len(given) > 1 else model.predict(given["chars"], verbose=0)
    arrays = {n: keras.ops.convert_to_numpy(t) for n, t in made.items()}
    np.savez(folder / f"{engine}.npz", **arrays)
    for variable in model.trainable_variables:
        variable.assign(2 * variable)
    model.save(folder / f"{engine}.keras")
assert not [name for name in sys.modules if name.partition(".")[0] == "harness"]
"""


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


@pytest.mark.parametrize("name", sampled(lesson6(), SAMPLE))
def test_outputs_agree_with_the_oracle_at_any_size(
    worker: Worker, tmp_path: Path, name: str
) -> None:
    case, path = Case.of(harness.load(name), "float32"), tmp_path / "model.keras"
    module = path.with_suffix(".py")
    files = written(worker, case, path)
    assert files == ([path, module] if name in WITH_MODULE else [path])
    assert sorted(tmp_path.iterdir()) == sorted(files)
    if name in WITH_MODULE:
        assert WITH_MODULE[name] in module.read_text()
    for batch, time in ((3, 4), (1, 1), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED["float32"]
    assert_comes_back(worker, case, path)


def test_layers_in_layers(worker: Worker, tmp_path: Path) -> None:
    case = Case.of(harness.load(str(ODD / "nested.yaml"), [ODD]), "float32")
    path = tmp_path / "nested.keras"
    assert written(worker, case, path) == [path, path.with_suffix(".py")]
    for batch, time in ((3, 4), (1, 2), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED["float32"]
    assert_comes_back(worker, case, path)


@pytest.mark.parametrize("name", sampled(SAMPLE, (LSTM,)))
def test_float64(worker: Worker, tmp_path: Path, name: str) -> None:
    case, path = Case.of(harness.load(name), "float64"), tmp_path / "model.keras"
    written(worker, case, path)
    assert outputs(worker, case, path) < ALLOWED["float64"]
    assert_comes_back(worker, case, path)


@pytest.mark.parametrize("dtype", ALLOWED)
def test_a_model_that_is_hard_to_write(worker: Worker, tmp_path: Path, dtype: str) -> None:
    spec = harness.load(str(ODD / "odd.yaml"), [ODD])
    case, path = Case.of(spec, dtype), tmp_path / "model.keras"
    written(worker, case, path)
    for batch, time in ((3, 4), (1, 2), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
    assert_comes_back(worker, case, path)


@pytest.mark.parametrize("dtype", ALLOWED)
def test_all_forms_of_the_language(worker: Worker, tmp_path: Path, dtype: str) -> None:
    case, path = Case.of(everything(tmp_path), dtype), tmp_path / "model.keras"
    written(worker, case, path)
    classes = re.findall(r"^class (\w+)", path.with_suffix(".py").read_text(), re.MULTILINE)
    assert classes == ["Pair", "Centred", "Add", "Multiply", "Multiply2"]
    for batch, time in ((3, 4), (1, 2), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
    assert_comes_back(worker, case, path)


@pytest.fixture(scope="module")
def folders(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Case]:
    """Models of the sample and one with everything, each with a batch."""
    top = tmp_path_factory.mktemp("engines")
    found = {}
    for spec in (
        *map(harness.load, SAMPLE),
        everything(top),
        harness.load(str(ODD / "odd.yaml"), [ODD]),
    ):
        folder, case = top / spec.name.replace("/", "-"), Case.of(spec, "float32")
        folder.mkdir()
        found[folder] = case
        written(worker, case, folder / "model.keras")
        inputs, state = case.batch(3, 4)
        given = {**inputs, **{f"state.{n}": a for n, a in state.items()}}
        np.savez(folder / "given.npz", **given)
        np.savez(folder / "wanted.npz", **case.wanted(inputs, state))
    return found


@pytest.mark.parametrize("engine", sampled(ENGINES, ["tensorflow", "torch"]))
def test_keras_alone_runs_changes_and_saves_files_on_each_engine(
    worker: Worker, folders: dict[Path, Case], engine: str
) -> None:
    subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *map(str, folders)],
        env={**os.environ, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
    )
    for folder, case in folders.items():
        found, wanted = np.load(folder / f"{engine}.npz"), np.load(folder / "wanted.npz")
        named = {n if n.startswith("state.") else f"output.{n}": a for n, a in found.items()}
        assert error(named, dict(wanted)) < ALLOWED["float32"]
        anew = read(worker, case, folder / f"{engine}.keras")
        doubled = {n: 2 * a for n, a in case.exported.parameters.items()}
        assert_same(anew["parameters"], doubled)
        assert_same(anew["statistics"], case.exported.statistics)


def test_a_table_of_positions_is_written_on_torch(tmp_path: Path) -> None:
    """Keras there finds a shape by a trial of length 83, and the table has 64 rows."""
    case, path = Case.of(harness.load("gpt"), "float32"), tmp_path / "gpt.keras"
    with Worker(launch("keras", environment={"KERAS_BACKEND": "torch"})) as worker:
        written(worker, case, path)
        assert outputs(worker, case, path, 3, 4) < ALLOWED["float32"]


def test_float64_that_keras_rounds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_weights(tmp_path / "w.st", dtype="float64")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    asked = {"spec": SPEC, "weights": tmp_path / "w.st", "format_": "keras"}
    outcome = run_export(make_options(ExportOptions, {**asked, "output": tmp_path / "rnn.keras"}))
    assert outcome.exit_code == 1
    told = str(outcome)
    assert "differ" in told
    assert "on torch, Keras rounds float64 values to float32" in told
    assert "export with KERAS_BACKEND=tensorflow, or export float32 weights" in told
    assert not (tmp_path / "rnn.keras").exists()


def _swap_gates(members: dict[str, bytes]) -> None:
    """The first two gates of Keras' order: input and forget."""
    buffer, units = io.BytesIO(members["model.weights.h5"]), SMALL["hidden"]
    with h5py.File(buffer, "r+") as file:
        kernel = file["layers/lstm/cell/vars/1"]
        array = kernel[...]
        order = [*range(units, 2 * units), *range(units), *range(2 * units, 4 * units)]
        kernel[...] = array[:, order]
    members["model.weights.h5"] = buffer.getvalue()


def test_gates_that_trade_places_are_seen(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved
    assert outputs(worker, case, path) < ALLOWED["float32"]
    swapped = changed(path, _swap_gates)
    assert outputs(worker, case, swapped) > 1e-3
    found, given = read(worker, case, swapped)["parameters"], case.exported.parameters
    assert_same({"U": found["lstm.U_i"]}, {"U": given["lstm.U_f"]})
    assert_same({"U": found["lstm.U_f"]}, {"U": given["lstm.U_i"]})
    assert_same({"U": found["lstm.U_g"]}, {"U": given["lstm.U_g"]})


def test_vocabulary_and_history_are_in_the_archive(saved: tuple[Case, Path]) -> None:
    with zipfile.ZipFile(saved[1]) as archive:
        notes = json.loads(archive.read("harness.json"))
    assert notes == {"spec": LSTM, "vocabulary": ["\0", "é"], "metadata": {"seed": 3}}
