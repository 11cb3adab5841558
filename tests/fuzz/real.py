"""Real inputs: every file and message as the harness itself writes it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_results import REQUEST, refused, result
from safetensors.numpy import save as to_safetensors

import harness
from harness.checking import reproducer
from harness.checking.request import Request, make_case
from harness.convert import weights
from harness.convert.weights import Weights
from harness.language import schema
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import Spec, fingerprint, load_spec
from harness.results.cell import Cell
from harness.timing import json_file
from harness.training import checkpoint
from harness.training.checkpoint import Checkpoint
from harness.training.table import Table, table
from harness.worker import frames

MODEL = "lesson6/stateful_lstm"
SIZES = {"vocab": 7, "factors": 3, "hidden": 4}


@cache
def spec() -> Spec:
    return load_spec(MODEL)


def models() -> list[bytes]:
    found = files("harness.specs").joinpath("models/lesson6")
    return [f.read_bytes() for f in found.iterdir() if f.name.endswith(".yaml")]


@cache
def real_weights() -> Weights:
    program = spec().program("training", **SIZES)
    return Weights(
        MODEL,
        fingerprint(spec()),
        dict(program.sizes),
        initial_parameters(program, 0),
        initial_statistics(program),
        ("\0", *"abcdef"),
        {"loss": 1.5, "epochs": [], "text": {"name": "builtin", "sha256": "0" * 64}},
    )


def written(write: Callable[[Path], Any]) -> bytes:
    """The bytes of the file that a writer makes."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


@cache
def weights_file() -> bytes:
    return written(lambda path: weights.save(path, real_weights()))


@cache
def checkpoint_file() -> bytes:
    epoch = {"epoch": 1, "learning_rate": 0.1, "loss": 1.5, "curve": [1.5], "held_out_loss": None}
    epoch |= {"seconds": 0.5, "characters_per_second": 9.0, "memory": {}}
    history = {"run": "0", "seed": 0, "dtype": "float32", "sizes": SIZES, "recipe": {}, "steps": 9}
    history |= {"backend": "numpy", "path": "native", "text": {}, "epochs": [epoch]}
    given = replace(real_weights(), history=history)
    slots = {slot.name: dict(given.parameters) for slot in spec().update.slots}
    position = {"epoch": 1, "step": 2, "steps": 9, "sums": [[1.5, 64]]}
    made = Checkpoint(given, slots, {}, position)
    return written(lambda path: checkpoint.save(path, made))


def shipped_file(path: str) -> bytes:
    return files("harness.specs").joinpath(f"{path}.yaml").read_bytes()


@cache
def results_file() -> bytes:
    content = json_file.document(REQUEST, [result(), result("jax"), refused()])
    return written(lambda path: json_file.write(path, content))


@cache
def records_file() -> bytes:
    def write(path: Path) -> None:
        harness.check("lesson6/three_char", backends=("numpy",), checks=("values",), records=path)

    return written(write)


@cache
def reproducer_files() -> Mapping[str, bytes]:
    case = make_case(spec(), Request(), own=False)
    cell = Cell(MODEL, "numpy", "cpu", "float32", "native")
    with TemporaryDirectory() as folder:
        made = reproducer.save(Path(folder), cell, case, "gradients")
        return {file.name: file.read_bytes() for file in made.iterdir()}


def program_file() -> bytes:
    return reproducer_files()["program.json"]


@cache
def inputs_file() -> bytes:
    chars = np.arange(6).reshape(2, 3)
    state = {f"state.{name}": np.zeros((2, SIZES["hidden"])) for name in "hc"}
    buffer = io.BytesIO()
    np.savez(buffer, **{"chars": chars, "target.target": chars, **state})
    return buffer.getvalue()


@cache
def table_file() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, pixels=np.zeros((2, 64), np.float32), label=np.arange(2))
    return buffer.getvalue()


def table_at(path: Path) -> Table:
    """The data of a model that is trained on arrays, from a file."""
    vae = load_spec("vae")
    assert isinstance(vae.model.data, schema.DataSet)
    return table(vae, vae.program("training"), vae.model.data, path)


@cache
def plain_weights_file() -> bytes:
    return to_safetensors({**real_weights().parameters, **real_weights().statistics})


def frame(message: Any) -> bytes:
    return b"".join(bytes(piece) for piece in frames.encode(message))


def answers() -> list[bytes]:
    """Frames as a worker sends them."""
    arrays = {"loss": np.float32(1.5), "gradient.W": np.ones((2, 3)), "index": np.arange(4)}
    value = {"results": arrays, "paths": {"rnn": "native"}, "none": None}
    answer = {"id": 1, "status": "ok", "value": value, "seconds": 0.5}
    return [frame(answer), frame({"id": 2, "status": "error", "kind": "E", "message": "m"})]
