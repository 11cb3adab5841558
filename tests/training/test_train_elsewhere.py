"""A run is taken up from another working folder, by other relative paths of the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from texts import FOX
from wording import Wording

from harness.cli import cli

SIZES = ("--size", "hidden=6", "--size", "factors=4")
# A model of a user's own, beside the others.
MODEL = "lesson6/sequence_rnn"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where the files are, and another one."""
    here, there = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, there):
        folder.mkdir()
    shipped = Path(__file__).parents[2] / "specs" / "models" / f"{MODEL}.yaml"
    (here / "mine.yaml").write_text(shipped.read_text().replace(MODEL, "mine"))
    (here / "text.txt").write_text(40 * FOX)
    return here, there


def test_a_training_goes_on_from_another_folder(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    here, there = folders
    monkeypatch.chdir(here)
    options = ("--backend", "numpy", "--batch", 4, *SIZES)
    files = ("mine.yaml", "--text", "text.txt", "--weights", "w.safetensors")
    first = run("train", *files, *options, "--epochs", 1, "--resume")
    assert first.exit_code == 0, first.output
    f"there is no {here / 'w.safetensors.checkpoint'} yet"
    wording.line(first.output, f"{here / 'w.safetensors.checkpoint'}")
    monkeypatch.chdir(there)
    files = ("../here/mine.yaml", "--text", "../here/text.txt", "--weights")
    second = run("train", *files, "../here/w.safetensors", *options, "--epochs", 2, "--resume")
    assert second.exit_code == 0, second.output
    wording.line(second.output, "1 of epoch")
    assert "there is no" not in second.output
    # Of a path that leads nowhere it is told what is missing, and where.
    lost = run("train", *files, "w.safetensors", *options, "--epochs", 1, "--resume")
    wording.line(lost.output, f"{there / 'w.safetensors.checkpoint'}")


def test_a_check_goes_on_from_another_folder(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    here, there = folders
    options = ("--backend", "numpy", "--check", "values", "--resume", "--records")
    monkeypatch.chdir(here)
    first = run("check", "mine.yaml", *options, "run.jsonl")
    assert first.exit_code == 0, first.output
    wording.line(first.output, f"{here / 'run.jsonl'}")
    monkeypatch.chdir(there)
    second = run("check", "../here/mine.yaml", *options, "../here/run.jsonl")
    assert second.exit_code == 0, second.output
    assert "run again" not in second.output
    kinds = [json.loads(line)["kind"] for line in (here / "run.jsonl").read_text().splitlines()]
    # The second head says that nothing was left to do.
    assert (kinds.count("head"), kinds.count("begin")) == (2, 2)
