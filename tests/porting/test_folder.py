"""The folder of a port: it is complete or missing, also after Ctrl-C."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.defaults.catalogue import catalogue
from harness.errors import UsageError
from harness.oracle.tolerance import Deviation
from harness.porting.inputs import InputDeclaration
from harness.porting.options import PortRequest
from harness.porting.proof import Ported, result_digits
from harness.porting.readme import MARK, NOT_IN_MODELS, README, check_folder, describe, write_folder
from harness.porting.spec import PortedSpec
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir(mode=0o700)
    for name in ("net.yaml", "net.map"):
        (folder / name).write_text(name)
    (folder / README).write_text(f"{MARK}\n# net\n")
    return folder


@pytest.mark.parametrize("name", ["new", "empty", "inner/new", "link"])
def test_a_folder_has_all_files(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    folder = tmp_path / name
    assert write_folder(source, folder) == [README, "net.map", "net.yaml"]
    assert {path.name for path in folder.iterdir()} == {README, "net.map", "net.yaml"}
    assert folder.stat().st_mode & 0o055 or folder.is_symlink()
    assert not list(tmp_path.rglob(".*"))


def test_an_earlier_port_is_replaced_and_other_files_stay(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "port"
    write_folder(source, folder)
    (folder / "notes.txt").write_text("mine")
    (source / "net.yaml").write_text("newer")
    write_folder(source, folder)
    assert (folder / "net.yaml").read_text() == "newer"
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("last", ["net.yaml", "net.map", README])
def test_an_interrupted_port_leaves_no_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    copy = shutil.copyfile

    def interrupted(one: Path, other: Path) -> None:
        if one.name == last:
            raise KeyboardInterrupt
        copy(one, other)

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    folder = tmp_path / "port"
    with pytest.raises(KeyboardInterrupt):
        write_folder(source, folder)
    check_folder(folder, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_place_that_cannot_be_written_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        write_folder(source, tmp_path / "file" / "port")


def readme_of(options: PortRequest, *used: str) -> str:
    """Return the README of a port of a torch model that uses these layers."""
    cell = SimpleNamespace(backend="torch@net.Net", dtype="float64")
    against: Any = [SimpleNamespace(cell=cell, findings=[], not_compared=())]
    export = SimpleNamespace(dtype="float32", agreement=None, gradients=None)
    exports: Any = dict.fromkeys(options.formats, export)
    spec = PortedSpec("", (), (), {}, frozenset(used))
    ported = Ported("net", spec, "torch.nn.Module Net", against, [], exports, [])
    return describe(ported, [InputDeclaration.of("x=batch,6")], {}, options)


def test_digits_leave_out_tensors_that_are_mostly_rounding_errors() -> None:
    def result(*findings: Finding) -> CellResult:
        found = CellResult(Cell("net", "torch@net.Net", "cpu", "float64", "native"))
        found.findings.extend(findings)
        return found

    right = Finding("inference", [Deviation("output.y", 1e-14, 1e-14, 1e-12)])
    huge = [Deviation("output.y", 1e-3, 1e-3, 1e-2, telling=False)]
    saturated = result(right, Finding("saturation", huge))
    assert result_digits(saturated) == 14.0
    assert result_digits(result(Finding("saturation", huge))) is None
    wrong = Finding("saturation", [Deviation("output.y", 1e-1, 1e-3, 1e-2, telling=False)])
    assert result_digits(result(right, wrong)) == 1.0
    lucky = Finding("saturation", [Deviation("output.y", 1e-13, 1e-3, 1e-2, telling=False)])
    assert result_digits(result(right, lucky)) == 13.0
    narrow = [Deviation("output.y", 1e-7, 1e-7, 1e-6, telling=False)]
    assert result_digits(result(right, Finding("outputs", narrow, excuse="float32"))) == 7.0
    ported = Ported("net", PortedSpec("", (), (), {}, frozenset()), "Net", [saturated], [], {}, [])
    assert [row[-1] for row in ported.proof_rows()] == ["14.0"]


def test_the_command_is_repeated_as_it_was_run() -> None:
    options = PortRequest(
        "my net.py:Net",
        formats=("jax", "keras"),
        output=Path("out"),
        checked=("numpy",),
        force=True,
    )
    line = next(row for row in readme_of(options).splitlines() if row.startswith("$ harness port"))
    words = ["--input", "x=batch,6", "--to", "jax", "--to", "keras", "--output", "out"]
    words += ["--check-on", "numpy", "--force"]
    assert shlex.split(line) == ["$", "harness", "port", "my net.py:Net", *words]
    large = PortRequest("net.py:Net", large="net.py:Large")
    assert "$ harness port net.py:Net --large net.py:Large\n" in readme_of(large)


def test_defaults_that_differ_are_those_a_port_must_set() -> None:
    to_jax, to_keras = (PortRequest("net.py:Net", formats=(name,)) for name in ("jax", "keras"))
    assert "Defaults" not in readme_of(to_jax, "embedding", "softmax", "log_softmax")
    recurrent = readme_of(to_jax, "bidirectional_gru_reset_after", "gru")
    assert "reset gate" in recurrent
    assert "separate kernel" in recurrent
    assert "swap" not in recurrent
    assert "keras: z, r" in readme_of(to_keras, "gru")
    assert "1e-3" in readme_of(to_keras, "batch_norm")
    assert {*catalogue()} >= NOT_IN_MODELS
