"""The wheel: one top-level name, all specs inside, and it works in an empty environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built in a copy so that no build folder is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_adds_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"harness"}


def test_the_wheel_holds_every_spec_and_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    specs = {f"harness/specs/{p.relative_to(ROOT / 'specs')}" for p in ROOT.glob("specs/**/*.yaml")}
    modules = {str(p.relative_to(ROOT)) for p in ROOT.glob("harness/**/*.py")}
    backends = {f"harness/{p.relative_to(ROOT)}" for p in ROOT.glob("backends/**/*.py")}
    assert specs
    assert specs | modules | backends <= names


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(venv, check=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", str(wheel)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binaries / "harness", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
        )

    listed = json.loads(run("list", "--json").stdout)
    assert len([n for n in listed["model"] if n.startswith("lesson6/")]) == 12
    assert "332,058" in run("explain", "lesson6/stateful_lstm").stdout
    checked = run(
        "check", "lesson6/stateful_lstm", "--backend", "numpy", "--check", "outputs", "--json"
    )
    assert checked.returncode == 0, checked.stderr
    assert {r["verdict"] for r in json.loads(checked.stdout)["results"]} == {"agree"}
    # A framework that is not installed is an error of its own cells, with what to do.
    missing = run("check", "lesson6/simple_rnn", "--backend", "torch,numpy", "--check", "outputs")
    assert missing.returncode == 3
    assert "No module named 'torch'" in missing.stdout
