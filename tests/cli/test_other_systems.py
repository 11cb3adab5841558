"""All commands run on macOS and Windows.

The systems are played: Python starts without what it lacks there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
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
    "merge run.jsonl run.jsonl -o merged.jsonl",
)
WITH_BACKENDS = (
    "check lesson6/first_rnn --backend numpy --check values --memory 4000",
    "train lesson6/first_rnn --backend numpy --text builtin --size hidden=8 --epochs 1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of a check and results of bench."""
    folder = tmp_path_factory.mktemp("files")
    report_files.records(folder / "run.jsonl")
    report_files.speeds(folder / "bench.json")
    return folder


def run(system: str, folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    played = {"PYTHONPATH": str(SUPPORT / "other_systems"), "PLAYED": system} if system else {}
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **played},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def outcomes(system: str, folder: Path, commands: Sequence[str]) -> list[tuple[str, int, str]]:
    """Name, exit code and output of each command, which run in one process."""
    words = json.dumps([command.split() for command in commands])
    done = run(system, folder, sys.executable, "-c", COMMANDS, words)
    assert done.returncode == 0, done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in found] == [command.split()[0] for command in commands]
    return found


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_commands_that_need_no_backend_run(system: str, folder: Path) -> None:
    for name in ("page.html", "page.md"):
        (folder / name).unlink(missing_ok=True)
    for name, code, output in outcomes(system, folder, PORTABLE):
        assert (code, bool(output.strip())) == (0, True), (name, output)
    assert (folder / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert (folder / "page.md").exists()


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_commands_that_need_a_backend_run(system: str, folder: Path) -> None:
    commands = [f"{words} --weights {system}" for words in WITH_BACKENDS[1:]]
    for name, code, output in outcomes(system, folder, (WITH_BACKENDS[0], *commands)):
        assert code == 0, (name, output)
    assert (folder / system).stat().st_size > 1000


WRITES = """
import contextlib, os
from pathlib import Path
from harness.files.atomic import staging, whole, write_whole

for content in (b"old", b"new"):
    write_whole(Path("whole"), content)
with whole(Path("library.txt")) as new:
    new.write_bytes(b"new")
with staging(Path("folder")) as folder:
    (folder / "file").write_bytes(b"new")
with contextlib.suppress(ZeroDivisionError), whole(Path("library.txt")) as new:
    1 / 0
print({name: Path(name).read_text() for name in sorted(os.listdir("."))})
"""


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_files_are_replaced_though_windows_moves_no_open_file(system: str, tmp_path: Path) -> None:
    done = run(system, tmp_path, sys.executable, "-c", WRITES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'library.txt': 'new', 'whole': 'new'}\n"


def test_an_unknown_system_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_SYSTEM", "beos")
    found = outcomes("", folder, ("check lesson6/first_rnn --backend numpy",))
    assert [(name, code) for name, code, _ in found] == [("check", 2)]
    assert "HARNESS_SYSTEM takes 'portable' or nothing, found 'beos'" in found[0][2]


@pytest.mark.parametrize(
    ("system", "words", "code", "shown"),
    [
        ("macos", "--help", 0, "differences"),
        ("macos", "explain lesson6/first_rnn --backend numpy", 0, "numpy"),
        ("windows", "--help", 0, "differences"),
        ("windows", "explain lesson6/first_rnn --backend numpy", 0, "numpy"),
    ],
)
def test_the_entry_point_starts(
    system: str, words: str, code: int, shown: str, folder: Path
) -> None:
    done = run(system, folder, HARNESS, *words.split())
    assert done.returncode == code, done.stderr
    assert shown in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
