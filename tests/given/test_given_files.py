"""Files of numbers that hold something else: what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import harness
from harness.errors import HarnessError
from harness.given.files import gather

SPEC = "lesson6/stateful_lstm"
SIZES = {"vocab": 20, "factors": 3, "hidden": 4}


def bfloat16(path: Path) -> None:
    """An array of a dtype that numpy has not, beside one that is as it should be."""
    tensors = {
        "embed.table": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "out.b": {"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]},
    }
    header = json.dumps(tensors).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "bfloat16": (bfloat16, "out.b is BF16; allowed are float32 and float64"),
    "none": (lambda path: save_file({}, path), "parameter 'embed.table' is missing"),
    "integers": (
        lambda path: save_file({"out.b": np.zeros(20, np.int8)}, path),
        "out.b is int8; allowed are float32 and float64",
    ),
}
CHARS = np.zeros((2, 5), np.int64)
INPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one array": (
        lambda path: path.with_suffix(".npy").rename(path),
        "it is an npy file: a single array without a name; write it with numpy.savez",
    ),
    "a target": (
        lambda path: np.savez(path, chars=CHARS, target=CHARS),
        "unknown input 'target': target is a target of lesson6/stateful_lstm; in a file of inputs "
        "name it target.target",
    ),
    "a state": (
        lambda path: np.savez(path, chars=CHARS, h=np.zeros((2, 4)), c=np.zeros((2, 4))),
        "unknown input 'h': h is a state of lesson6/stateful_lstm; in a file of inputs name it "
        "state.h",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_something_else_are_named(name: str, tmp_path: Path) -> None:
    write, words = WEIGHTS[name]
    write(tmp_path / "w.safetensors")
    with pytest.raises(HarnessError) as caught:
        gather(harness.load(SPEC), SIZES, parameters=tmp_path / "w.safetensors")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_something_else_are_named(name: str, tmp_path: Path) -> None:
    write, words = INPUTS[name]
    np.save(tmp_path / "x.npy", CHARS)
    write(tmp_path / "x.npz")
    with pytest.raises(HarnessError) as caught:
        gather(harness.load(SPEC), SIZES, inputs=tmp_path / "x.npz")
    assert words in str(caught.value)
