"""Reproducers that are run again, on their own backend and on another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from wording import Wording

from harness.checking.reproducer import save
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.language.model import load_spec
from harness.results.cell import Cell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)
    cell = Cell("lesson6/stateful_lstm", "numpy", "cpu", "float32", "native")
    return save(tmp_path / "kept", cell, case, "gradients")


def replay(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["replay", *arguments])


def expected_changed(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / "arrays.npz"
    with np.load(path) as archive:
        arrays = {n: archive[n] for n in archive.files}
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)


def test_replay_of_what_agrees_returns_0(folder: Path, wording: Wording) -> None:
    run = replay(str(folder))
    assert run.exit_code == 0, run.output
    wording.line(run.stdout, "lesson6/stateful_lstm ... numpy, float32 ... gradients: agrees ... 3")


def test_replay_of_what_differs_returns_1_and_names_it(folder: Path, wording: Wording) -> None:
    expected_changed(folder, "expected/gradient.out.b", lambda a: a * 1.001)
    run = replay(str(folder))
    assert run.exit_code == 1, run.output
    first, last = run.stdout.splitlines()
    assert first.startswith("gradient.out.b: error 9.99e-04, ")
    wording.line(last, "float32 ... gradients: differs ... gradient.out.b")


def test_a_program_reads_what_a_replay_says(folder: Path) -> None:
    expected_changed(folder, "expected/gradient.out.b", lambda a: a * 1.001)
    run = replay(str(folder), "--json")
    content = json.loads(run.stdout)
    assert content["exit_code"] == run.exit_code == 1
    assert (content["check"], content["agrees"]) == ("gradients", False)
    assert content["worst"] == "gradient.out.b"
    (wrong,) = (tensor for tensor in content["tensors"] if not tensor["agrees"])
    assert wrong["error"] == pytest.approx(1e-3, rel=0.01)
    assert wrong["error"] > wrong["allowed"]


def test_replay_that_cannot_run_returns_3(folder: Path) -> None:
    run = replay(str(folder), "--python", "/bin/false")
    assert run.exit_code == 3, run.output
    assert "\nnumpy: start: " in f"\n{run.stderr}"
    assert "Traceback" not in run.output


def test_another_backend_replays_on_its_cpu_what_was_on_a_card(
    folder: Path, wording: Wording
) -> None:
    path = folder / "program.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"cpu"', '"abacus"'), "utf-8")
    for run in (replay(str(folder)), replay(str(folder), "--device", "abacus")):
        assert run.exit_code == 2, run.output
        wording.line(run.output, "numpy ... 'abacus' ... cpu")
    assert replay(str(folder), "--device", "cpu").exit_code == 0
    path.write_text(path.read_text(encoding="utf-8").replace('"numpy"', '"another"'), "utf-8")
    run = replay(str(folder), "--backend", "numpy")
    assert run.exit_code == 0, run.output
    wording.line(run.stdout, "numpy (cpu), float32 ... gradients: agrees")


def test_replay_on_an_unknown_backend_returns_2(folder: Path, wording: Wording) -> None:
    run = replay(str(folder), "--backend", "nump")
    assert run.exit_code == 2, run.output
    wording.line(run.output, "'nump' ... 'numpy'")


def test_replay_of_nothing_returns_2(folder: Path, tmp_path: Path, wording: Wording) -> None:
    run = replay(str(tmp_path / "nowhere"))
    assert run.exit_code == 2
    wording(run.output)
    with np.load(folder / "arrays.npz") as archive:
        arrays = {n: archive[n] for n in archive.files if not n.startswith("expected/")}
    np.savez(folder / "arrays.npz", **arrays)
    run = replay(str(folder))
    assert run.exit_code == 2
    wording(run.output)
