"""A backend whose framework is not installed: told without importing anything, with what brings
it, and left out where nobody has named it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import pytest
from wording import Wording

from harness.runtime import needs
from harness.runtime.plugins import extras

DISTRIBUTION = "backend-comparison-harness"
FRAMEWORKS = (
    *("torch", "jax", "keras", "tensorflow", "optax"),
    *("array-api-strict", "array_api_strict", "pytensor"),
)
# Shuts frameworks out of an interpreter, and notes which of them anybody asks to import.
WITHOUT = """
import importlib.metadata, importlib.util, os, sys
gone = {gone!r}
real, spec = importlib.metadata.distribution, importlib.util.find_spec
def distribution(name):
    if name in gone:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.distribution = distribution
importlib.util.find_spec = lambda name, package=None: None if name in gone else spec(name, package)
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
"""


def interpreter(folder: Path, *gone: str) -> str:
    """An interpreter of its own, in which some frameworks are not installed."""
    (folder / "gone").mkdir()
    (folder / "gone" / "sitecustomize.py").write_text(WITHOUT.format(gone=gone))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "gone"}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def harness(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-P", "-c", "from harness.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def numpy_only(tmp_path_factory: pytest.TempPathFactory) -> str:
    return interpreter(tmp_path_factory.mktemp("numpy_only"), *FRAMEWORKS)


def lacking_of(python: str) -> Mapping[str, str]:
    ran = subprocess.run(
        [python, "-P", "-m", "harness.runtime.needs"], capture_output=True, text=True, check=True
    )
    found: Mapping[str, str] = json.loads(ran.stdout)
    return found


def test_here_nothing_is_missing_but_flax() -> None:
    """It has an environment of its own: see the Makefile."""
    assert needs.missing_here().keys() <= {"flax"}


def test_the_backend_that_runs_on_a_framework_is_named(
    monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    told = str(needs.unknown_backend("tensorflow"))
    wording.line(told, "'tensorflow' ... keras ... tensorflow")
    monkeypatch.setattr(needs, "missing_here", lambda: {"flax": "pip install flax"})
    told = str(needs.unknown_backend("nonsuch"))
    wording.line(told, "numpy ... flax")
    assert "flax" not in told.partition(";")[0]


def test_what_is_missing_and_what_brings_it(numpy_only: str, tmp_path: Path) -> None:
    how = f"pip install '{DISTRIBUTION}[%s]'"
    found = lacking_of(numpy_only)
    assert found == {
        "torch": how % "torch",
        "jax": how % "jax",
        "flax": how % "flax",
        "keras": how % "keras",
        "keras-torch": how % "keras,torch",
        "keras-jax": how % "keras,jax",
        "array-api-strict": how % "array-api-strict",
        "pytensor": how % "pytensor",
    }
    one = interpreter(tmp_path, "optax")
    assert sorted(lacking_of(one)) == ["flax", "jax", "keras-jax"]
    assert needs.missing_frameworks({"jax": one, "torch": one, "numpy": sys.executable}).keys() == {
        "jax"
    }


def test_an_interpreter_that_cannot_tell_lacks_nothing(tmp_path: Path) -> None:
    assert needs.missing_frameworks({"torch": str(tmp_path / "none"), "jax": "/bin/false"}) == {}


def test_extras_of_a_backend() -> None:
    own = distribution(DISTRIBUTION)
    assert extras(own, "torch") == ["torch"]
    assert extras(own, "keras-jax") == ["keras", "jax"]
    assert extras(own, "numpy") == []
    assert [r.name for r in needs.requirements(own, "jax")] == ["jax", "optax"]


def test_the_list_says_who_can_run(numpy_only: str, wording: Wording) -> None:
    shown = harness(numpy_only, "list", "--backends").stdout
    (torch,) = (line for line in shown.splitlines() if line.strip().startswith("torch"))
    wording.line(torch, f"'{DISTRIBUTION}[torch]'")
    found = json.loads(harness(numpy_only, "list", "--backends", "--json").stdout)["backends"]
    assert found["numpy"]["runs"] is True
    assert found["jax"]["runs"] is False
    assert found["jax"]["install"] == f"pip install '{DISTRIBUTION}[jax]'"


def test_a_check_of_all_leaves_out_what_is_missing(numpy_only: str, wording: Wording) -> None:
    words = ("check", "lesson6/three_char", "--check", "values", "--dtype", "float32")
    ran = harness(numpy_only, *words)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 cell: 1 agree" in ran.stdout
    wording.line(ran.stdout, f"torch ... '{DISTRIBUTION}[torch]'")
    as_json = json.loads(harness(numpy_only, *words, "--json").stdout)
    assert as_json["exit_code"] == 0
    assert as_json["not_installed"]["jax"] == f"pip install '{DISTRIBUTION}[jax]'"
    # Who is named is meant.
    asked = harness(numpy_only, *words, "--backend", "numpy,torch")
    assert asked.returncode == 3
    assert f"pip install '{DISTRIBUTION}[torch]'" in asked.stdout
    # The interpreter that is to run all decides, not the one that asks.
    other = harness(sys.executable, *words, "--python", numpy_only)
    assert other.returncode == 0, other.stdout + other.stderr
    wording.line(other.stdout, f"torch ... '{DISTRIBUTION}[torch]'")


def test_the_demo_takes_what_can_run(numpy_only: str) -> None:
    ran = harness(numpy_only, "demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "on numpy." in ran.stdout
