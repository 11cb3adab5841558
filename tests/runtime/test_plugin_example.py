"""An example of a backend is a real distribution: it installs, is found, and agrees.

Beside it a second one is installed that fails as it is imported, and hurts nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from places import DOCS, SUPPORT
from sampling import sampled
from wording import Wording

from harness.checking.options import CheckOptions
from harness.command.declared import options_of
from harness.language.library import lesson6
from harness.program.primitives import OFFERED, TABLE

EXAMPLE = SUPPORT / "plugin_example"
SOURCE = EXAMPLE / "harness_columns.py"
DOCUMENT = DOCS / "adding-a-backend.md"
BIN = Path(sys.executable).parent
# Indices, a loop and statistics, and a state that is carried.
ONE = ["lesson6/stateful_lstm"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which both distributions are installed, by pip."""
    folder = tmp_path_factory.mktemp("installed")
    # A copy: setuptools builds beside the source.
    sources = [
        str(shutil.copytree(SUPPORT / name, folder / "sources" / name))
        for name in ("plugin_example", "plugin_broken")
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), *sources]
    subprocess.run(command, check=True, timeout=120)
    paths = [str(folder / "site"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def harness(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "harness", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_both_are_listed_from_their_metadata(installed: dict[str, str]) -> None:
    listed = harness(installed, "list", "--json")
    assert listed.returncode == 0, listed.stderr
    backends = json.loads(listed.stdout)["backends"]
    assert backends["columns"] == {
        "distribution": "harness-columns",
        "version": "1.0",
        "module": "harness_columns",
        "runs": True,
        "on_request": False,
    }
    assert backends["broken"]["distribution"] == "harness-broken"
    assert "numpy" in backends


@pytest.mark.parametrize("systems", sampled([ONE, [*lesson6()]], [ONE]), ids=len)
def test_example_agrees_on_lesson_6(systems: Sequence[str], installed: dict[str, str]) -> None:
    run = harness(installed, "check", *systems, "--backend", "columns", "--json")
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    results = json.loads(run.stdout)["results"]
    cells = {(r["spec"], r["dtype"]) for r in results}
    assert len(cells) == 2 * len(systems)
    assert {r["verdict"] for r in results} == {"agree"}
    assert {layer for r in results for layer in r["layers"].values()} == {"equations"}


def test_broken_plugin_hurts_nobody_else(installed: dict[str, str], wording: Wording) -> None:
    arguments = ["check", "lesson6/simple_rnn", "--check", "values", "--json"]
    names = ["broken", "columns", "numpy"]
    run = harness(installed, *arguments, *(a for name in names for a in ("--backend", name)))
    assert run.returncode == 3, run.stderr
    assert "Traceback" not in run.stderr
    verdicts: dict[str, set[str]] = {name: set() for name in names}
    results = json.loads(run.stdout)["results"]
    for result in results:
        verdicts[result["backend"]].add(result["verdict"])
    assert verdicts == {"broken": {"error"}, "columns": {"agree"}, "numpy": {"agree"}}
    details = {r["detail"] for r in results if r["backend"] == "broken"}
    assert len(details) == 1
    wording.line(details.pop(), "ImportError: libcolumns.so.7")


def test_example_is_one_short_file() -> None:
    assert len(SOURCE.read_text().splitlines()) <= 100
    assert [p.name for p in EXAMPLE.glob("*.py")] == [SOURCE.name]


@pytest.mark.parametrize("table", [TABLE, OFFERED])
def test_documentation_lists_every_primitive(table: Mapping[str, str]) -> None:
    expected = "\n".join(f"- `{name}`: {meaning}" for name, meaning in table.items())
    assert expected in DOCUMENT.read_text(), f"the table must be:\n{expected}"


def test_documentation_names_what_the_contract_has() -> None:
    """Every method of the contract and every hook is described, and nothing else is."""
    from harness.runtime.backend import Backend
    from harness.runtime.hookspecs import Hooks

    text = DOCUMENT.read_text()
    names = [n for n in vars(Backend) if not n.startswith("_")]
    names += [n for n in vars(Hooks) if not n.startswith("_")]
    missing = [name for name in names if f"`{name}" not in text and f"def {name}" not in text]
    assert missing == []


def test_the_suite_s_options_in_the_documentation_are_the_real_ones() -> None:
    text = DOCUMENT.read_text()
    assert "pytest --pyargs harness.suite --backend columns" in text
    options = {one.suite for one in options_of(CheckOptions)}
    named: list[Any] = [word.strip("`.,;()") for word in text.split() if "--harness-" in word]
    assert named
    assert [n for n in named if n not in options] == []
