"""The package of a new backend: it installs, agrees on models, and tests itself."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import DOCS
from wording import Wording

from harness.commands import cli
from harness.program.primitives import DERIVABLE, EVERY

KINDS = {"eager": (), "lazily": ("--lazy",), "graphs": ("--graph",)}
BIN = Path(sys.executable).parent


def new(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["new-backend", *arguments])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of_table(source: str) -> list[str]:
    table = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "KERNELS"
    )
    return source.splitlines()[table.lineno : table.end_lineno]


@pytest.mark.parametrize("kind", KINDS)
def test_each_primitive_has_a_type(kind: str) -> None:
    assert new("mine", *KINDS[kind]).exit_code == 0
    lines = lines_of_table(Path("harness-mine/harness_mine.py").read_text())
    named: dict[str, str] = {}
    signature = ""
    for line in map(str.strip, lines):
        if line.startswith("# ("):
            signature = line
        elif line.startswith('"'):
            named[line.split('"')[1]] = signature
    assert set(EVERY) - named.keys() == {"erf", *DERIVABLE}
    assert all("->" in signature for signature in named.values())
    assert "class Mine(" in Path("harness-mine/harness_mine.py").read_text()


def test_the_page_shows_the_table() -> None:
    new("columns")
    text = (DOCS / "adding-a-backend.md").read_text()
    shown = text.split("```python\n")[1].partition("```")[0]
    source = Path("harness-columns/harness_columns.py").read_text().splitlines()
    assert [line for line in shown.splitlines() if line not in source] == []


def test_a_program_reads_which_files_were_written() -> None:
    content = json.loads(new("mine", "--json").stdout)
    assert content["folder"] == "harness-mine"
    assert {path.name for path in Path("harness-mine").iterdir()} == set(content["files"])


@pytest.mark.parametrize("name", ["1x", "a-b", "", "a b", "x_", "../x", "é", "a\nb"])
def test_a_name_must_be_an_identifier(name: str, here: Path) -> None:
    result = new(name)
    assert result.exit_code == 2
    assert repr(name) in result.output
    assert [*here.iterdir()] == []


def test_the_name_of_an_installed_backend_is_refused(here: Path, wording: Wording) -> None:
    result = new("numpy")
    assert result.exit_code == 2
    wording.line(result.output, "'numpy' ... backend-comparison-harness")
    assert [*here.iterdir()] == []


def test_nothing_is_replaced(here: Path, wording: Wording) -> None:
    folder, link = here / "harness-mine", here / "harness-other"
    folder.mkdir()
    link.symlink_to(here / "missing")
    for name in ("mine", "other"):
        result = new(name)
        assert result.exit_code == 2
        wording.line(result.output, f"harness-{name}")
    assert [*folder.iterdir()] == []
    assert not link.exists()


def test_a_framework_is_lazy_or_builds_graphs(here: Path, wording: Wording) -> None:
    result = new("mine", "--lazy", "--graph")
    assert result.exit_code == 2
    wording.line(result.output, "--graph ... --lazy")
    assert [*here.iterdir()] == []


def test_a_folder_that_cannot_be_written_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(Path, "rename", fail)
    result = new("mine")
    assert result.exit_code == 2
    wording.line(result.output, "harness-mine: disk full")
    assert [*here.iterdir()] == []


@pytest.mark.slow
def test_the_packages_agree_and_test_themselves(here: Path) -> None:
    for name, options in KINDS.items():
        assert new(name, *options).exit_code == 0
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(here / "site")]
    sources = [str(here / f"harness-{name}") for name in KINDS]
    subprocess.run([*command, *sources], check=True, timeout=120)
    places = [str(here / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    # Indices, a loop with a carried state, and convolutions.
    specs = ("lesson6/three_char", "lesson6/stateful_lstm", "lenet")
    checks = ("values", "training", "pipeline-forward", "functions", "nan")
    check = [BIN / "harness", "check", *specs, "--backend", ",".join(KINDS), "--json"]
    check += [word for one in checks for word in ("--check", one)]
    run = subprocess.run(
        [*check, "--jobs", "1"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    results = json.loads(run.stdout)["results"]
    assert {result["verdict"] for result in results} == {"agree"}
    cells = {(one["backend"], one["spec"], one["dtype"]) for one in results}
    assert len(cells) == len(KINDS) * len(specs) * 2

    suite = [sys.executable, "-m", "pytest", "-q", "-k", "three_char and float32 and outputs"]
    run = subprocess.run(
        suite, cwd=sources[0], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert " passed" in run.stdout
