"""What the command says of files that are none, and of numbers that are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from foreign import SECONDS, SPEC, array_bytes, rewritten
from needed import need
from time_limits import over_within

from harness.cli import cli
from harness.convert import weights
from harness.convert.weights import Weights
from harness.language.model import fingerprint, load_spec
from harness.oracle.draw import draw


@pytest.mark.parametrize("name", ["torch", "jax", "keras", "onnx"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing", "empty"])
def test_what_is_no_regular_file_is_refused_at_once(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "empty" and name != "torch":
        pytest.skip("each format's own tests have that")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "folder": file.mkdir,
        "loop": lambda: file.symlink_to(file),
        "missing": lambda: None,
        "empty": lambda: file.write_bytes(b""),
    }[kind]()
    with over_within(SECONDS):
        arguments = ["import", SPEC, "file", "--from", name, "--weights", "w.st"]
        found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    assert not (tmp_path / "w.st").exists()


def made(path: Path, **changed: Any) -> Weights:
    spec = load_spec(SPEC)
    program = spec.program("training", hidden=8)
    drawn = draw(program, 1, 1, 3)
    parameters = {n: a.astype(np.float32) for n, a in drawn.parameters.items()} | changed
    sizes = dict(program.sizes)
    found = Weights(
        SPEC, fingerprint(spec), sizes, parameters, {}, ("\0", *map(chr, range(32, 117)))
    )
    weights.save(path, found)
    return found


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_neither_exported_nor_imported(
    number: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("jax")
    monkeypatch.chdir(tmp_path)
    bias = np.zeros(86, np.float32)
    made(tmp_path / "good.st")
    arguments = ["export", SPEC, "--to", "jax", "--output", "m.npz", "--weights"]
    assert CliRunner().invoke(cli, [*arguments, "good.st"]).exit_code == 0
    bias[3:5] = number
    made(tmp_path / "bad.st", **{"out.b": bias})
    found = CliRunner().invoke(cli, [*arguments, "bad.st", "--force"])
    assert found.exit_code == 2
    words = "2 of the 86 numbers of out.b are NaN or infinite"
    assert f"bad.st: {words}" in " ".join(found.output.split())
    rewritten(
        tmp_path / "m.npz",
        lambda parts: parts.update({"out/b.npy": array_bytes(bias)}),
        tmp_path / "n.npz",
    )
    arguments = ["import", SPEC, "n.npz", "--from", "jax", "--size", "hidden=8", "--weights", "w"]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2
    assert f"n.npz: {words}" in " ".join(found.output.split())
    assert not (tmp_path / "w").exists()
