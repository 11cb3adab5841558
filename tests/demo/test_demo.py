"""The first look: right without the planted fault, and told in words with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from needed import need
from wording import Wording

from harness.checking.reproducer import load
from harness.commands import cli
from harness.demo import broken
from harness.runtime import plugins


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the demo runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(*words: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *words])


def test_all_agree_on_numpy(here: Path) -> None:
    found = shown("--backend", "numpy")
    assert found.exit_code == 0, found.output
    assert "1 cell: 1 agree" in found.output
    assert "harness demo --break" in found.output
    assert not any(here.iterdir())


def test_a_program_reads_what_a_check_prints() -> None:
    found = shown("--backend", "numpy", "--json")
    content = json.loads(found.stdout)
    assert content["exit_code"] == found.exit_code == 0
    assert {result["backend"] for result in content["results"]} == {"numpy"}


def test_a_planted_fault_is_named(framework: str, here: Path) -> None:
    found = shown("--break", "--backend", framework)
    assert found.exit_code == 1, found.output
    words = " ".join(found.output.split())
    assert "first differs at z of layer gru, time step 0" in words
    assert "The result is right if b_z and b_r of gru are swapped" in words
    assert "at fault: plugin" in words
    assert "1 agree, 1 differ" in words
    folder = Path("harness-demo/lesson6/keras_gru") / f"{framework}-float32-native"
    assert f"reproducer: harness replay {folder} " in words
    assert load(here / folder).cell.backend == framework
    assert f"harness localise MODEL.yaml --backend {framework}" in words


@pytest.fixture(params=["torch", "jax"])
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


def test_numpy_stays_right() -> None:
    backend = plugins.load("numpy")
    assert broken.handler(backend).__qualname__.startswith("handler")


def test_what_has_no_such_gates_is_handed_over_as_it_is() -> None:
    one = {"rnn.W": np.ones(2), "gru.b_z": np.zeros(1), "other.b_r": np.ones(1)}
    assert broken._swap_biases(one) == one


def test_no_such_backend_is_told(wording: Wording) -> None:
    found = shown("--backend", "torhc")
    assert found.exit_code == 2
    wording.line(found.output, "'torch'")
