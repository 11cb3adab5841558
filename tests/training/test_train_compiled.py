"""Paths through a compiler: bits repeat, and where there is none, it is said before a training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from needed import need
from small_trainings import harness
from wording import Wording

from harness.cli import cli
from harness.convert import weights

PATHS = ("compiled", "native-compiled")


@pytest.mark.parametrize("path", PATHS)
def test_a_backend_without_one_says_so_before_it_begins(
    text: Path, kept: Path, path: str, wording: Wording
) -> None:
    done = harness(text, kept, f"--path={path}")
    assert done.exit_code == 2
    wording.line(done.output, f"numpy ... {path!r}")
    assert not kept.exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("compiled", "torch.compile ... derived"),
        ("native-compiled", "torch.compile ... oneDNN's LSTM ... native"),
    ],
)
def test_what_a_compiler_cannot_take_is_refused(
    path: str, reason: str, tmp_path: Path, wording: Wording
) -> None:
    need("torch")
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("there is no compiler of C++")
    words = np.random.default_rng(1).integers(0, 40, (60, 40))
    rows = {"sentence": words, "lengths": np.full(60, 40), "tag": words % 6}
    np.savez(tmp_path / "rows.npz", **rows)
    options = ["--backend", "torch", "--path", path, "--data", str(tmp_path / "rows.npz")]
    done = CliRunner().invoke(cli, ["train", "bilstm_tagger", "--epochs", "1", *options])
    assert done.exit_code == 2
    assert f"\ntorch: {'torch.compile' if 'native' in path else 'with its loops'}" in done.output
    wording.line(" ".join(done.output.split()), reason)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_a_training_repeats_its_bits(text: Path, tmp_path: Path, path: str) -> None:
    """Threads add up the gradient of an embedding in any order, unless they are told not to."""
    need("torch")
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("there is no compiler of C++")
    options = (f"--path={path}", "--backend=torch", "--no-proof", "--threads=2", "--batch=4")
    made = []
    for name in ("one", "other"):
        kept = tmp_path / f"{name}.safetensors"
        done = harness(text, kept, *options, spec="lesson6/sequence_rnn")
        assert done.exit_code == 0, done.output
        made.append(weights.load(kept).parameters)
    for name, array in made[0].items():
        np.testing.assert_array_equal(made[1][name], array, err_msg=name)
