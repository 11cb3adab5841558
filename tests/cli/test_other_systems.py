"""On macOS and Windows a command that needs a backend says so, and the others run.

The systems are played: Python starts without what it lacks there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import report_files
from places import SUPPORT

HARNESS = Path(sys.executable).with_name("harness")
# Several commands in one process, as each start takes a second.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from harness.cli import cli

for words in json.loads(sys.argv[1]):
    found = CliRunner().invoke(cli, words)
    print(json.dumps([words[0], found.exit_code, found.output]))
"""
PORTABLE = (
    "list",
    "schema model",
    "explain lesson6/first_rnn",
    "explain lstm",
    "differences gru --between torch keras",
    "compare run.jsonl run.jsonl",
    "compare bench.json bench.json",
    "report run.jsonl bench.json -o page.html",
    "report run.jsonl -o page.md",
)
WITH_BACKENDS = (
    "check lesson6/first_rnn --backend numpy --html x.html",
    "bench lesson6/first_rnn --backend numpy",
    "run lesson6/first_rnn --backend numpy",
    "train lesson6/first_rnn --backend numpy --text builtin",
    "generate lesson6/first_rnn --weights w --prompt a --backend numpy",
    "export lesson6/first_rnn --weights w.safetensors --to torch",
    "demo",
    "env torch==2.13",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of a check and results of bench."""
    folder = tmp_path_factory.mktemp("files")
    report_files.records(folder / "run.jsonl")
    report_files.speeds(folder / "bench.json")
    return folder


def run(system: str, folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    played = {"PYTHONPATH": str(SUPPORT / "other_systems"), "PLAYED": system}
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **played},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_commands_that_need_no_backend_run(system: str, folder: Path) -> None:
    for name in ("page.html", "page.md"):
        (folder / name).unlink(missing_ok=True)
    words = json.dumps([command.split() for command in PORTABLE])
    done = run(system, folder, sys.executable, "-c", COMMANDS, words)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in found] == [command.split()[0] for command in PORTABLE]
    assert all(code == 0 and output.strip() for _, code, output in found), done.stdout
    assert (folder / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert (folder / "page.md").exists()


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_a_command_that_needs_a_backend_says_so_in_a_sentence(system: str, folder: Path) -> None:
    words = json.dumps([command.split() for command in WITH_BACKENDS])
    done = run(system, folder, sys.executable, "-c", COMMANDS, words)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(WITH_BACKENDS)
    for name, code, output in found:
        assert code == 2, (name, output)
        assert output.startswith("backends run only on Linux"), (name, output)
        assert len(output.splitlines()) == 1, (name, output)


@pytest.mark.parametrize("system", ["macos", "windows"])
@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        ("--help", 0, "differences"),
        ("check lesson6/first_rnn", 2, "backends run only on Linux"),
        ("explain lesson6/first_rnn --backend numpy", 0, "numpy: backends run only on Linux"),
    ],
)
def test_the_entry_point_starts(
    system: str, words: str, code: int, shown: str, folder: Path
) -> None:
    done = run(system, folder, HARNESS, *words.split())
    assert done.returncode == code, done.stderr
    assert shown in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
