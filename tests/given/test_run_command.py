"""``harness run``: what it prints and writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from wording import Wording

import harness
from harness.cli import cli
from harness.files import kinds

SPEC = "lesson6/sequence_rnn"
SIZES = {"vocab": 12, "factors": 3, "hidden": 4}
OPTIONS = [o for name, size in SIZES.items() for o in ("--size", f"{name}={size}")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    spec = harness.load(SPEC)
    random = np.random.default_rng(0)
    (inputs,), (target,) = spec.model.inputs, spec.model.targets
    arrays = {
        inputs: random.integers(0, 12, (2, 5)),
        f"target.{target}": random.integers(0, 12, (2, 5)),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["run", SPEC, *OPTIONS, *arguments])


@pytest.mark.parametrize("backend", ["numpy", "oracle"])
def test_results_are_written_as_arrays_by_name(backend: str, folder: Path) -> None:
    for _ in range(2):  # one's own results are replaced
        done = run("--backend", backend, "--inputs", "x.npz", "-o", "out.npz")
        assert done.exit_code == 0, done.output
    expected = harness.run(SPEC, backend, inputs=folder / "x.npz", sizes=SIZES)
    with np.load(folder / "out.npz") as found:
        assert found["loss"] == expected.loss
        for prefix, arrays in (("output", expected.outputs), ("gradient", expected.gradients)):
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[f"{prefix}.{name}"], array)
    assert f"loss {expected.loss:.9g}" in done.output
    assert "batch 2, time 5" in done.output


def test_json(folder: Path) -> None:
    done = run("--backend", "numpy", "--inputs", "x.npz", "--json", "--want", "loss")
    found = json.loads(done.stdout)
    assert found["loss"] == harness.run(SPEC, "numpy", inputs=folder / "x.npz", sizes=SIZES).loss
    assert not [name for name in found["shapes"] if name.startswith("output.")]
    assert found["sizes"] == {**SIZES, "batch": 2, "time": 5}


def test_files_of_others_stay(folder: Path, wording: Wording) -> None:
    before = (folder / "x.npz").read_bytes()
    done = run("--backend", "oracle", "--inputs", "x.npz", "-o", "x.npz")
    assert done.exit_code == 2
    wording.line(done.output, "'harness run'")
    assert (folder / "x.npz").read_bytes() == before
    wording(kinds.describe(folder / "x.npz"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--backend", "nump"), 2, "'numpy'"),
        (("--backend", "numpy", "--inputs", "none.npz"), 2, "none.npz"),
        (("--backend", "numpy", "--inputs", "."), 2, ""),
        (("--backend", "numpy", "--inputs", "x.npz", "--want", "los"), 2, "'loss'"),
        (("--backend", "numpy", "--inputs", "x.npz", "-o", "no/o.npz"), 2, ""),
        (("--backend", "numpy", "--inputs", "x.npz", "--python", "/bin/false"), 3, ""),
    ],
)
def test_what_is_wrong_is_told(
    arguments: tuple[str, ...], code: int, words: str, folder: Path, wording: Wording
) -> None:
    done = run(*arguments)
    assert done.exit_code == code, done.output
    wording.line(done.output, words)
    assert "Traceback" not in done.output or code == 3
