"""The suite in every way that pytest can be told to run it: the same cells, each once."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sampling import sampled
from suite_runs import specs, suite
from wording import Wording

SPECS = ("lesson6/simple_rnn", "lesson6/theano_rnn")
CHOSEN = (
    *("--backend", "numpy,faulty-numpy", "--dtype", "float64,float32", *specs(*SPECS)),
    *("-k", "(outputs or gradients) and not cotangent", "--junitxml", "junit.xml"),
)
FAULTS = {f"{SPECS[0]} float32": "exit_0", f"{SPECS[1]} float64": "wrong_shape"}
# A plugin of a session: which cells are run, and which backends' processes there are then.
NOTING = """
import json, os
import pytest
from harness.checking.engine import Engine

right = Engine.run_cell

def run_cell(engine, cell, *more):
    found = right(engine, cell, *more)
    alive = [name for name, worker in engine.workers.items() if worker.pid is not None]
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([str(cell), alive]) + "\\n")
    return found

Engine.run_cell = run_cell
"""
# Tests in an order of their own, the same in all processes.
SHUFFLING = """
import hashlib

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: hashlib.sha256(item.name.encode()).digest())
"""
# Whether tests have that order, and further arguments.
WAYS: Mapping[str, tuple[Any, ...]] = {
    "plain": (False,),
    "in another order": (True,),
    "in another order, in two processes": (True, "-n", "2"),
    **{
        f"--dist {dist}": (False, "-n", "2", "--dist", dist)
        for dist in ("load", "loadfile", "loadscope", "loadgroup", "worksteal")
    },
}


def outcomes(report: Path) -> dict[str, str]:
    """What became of each test of a JUnit file."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')} {case.get('name')}"
        assert name not in found, "told twice"
        found[name] = ", ".join(part.tag for part in case if part.tag != "properties")
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain")
    assert suite(folder, *CHOSEN, faults=FAULTS).returncode == pytest.ExitCode.TESTS_FAILED
    found = outcomes(folder / "junit.xml")
    assert Counter(found.values()) == {"": 13, "failure": 3}
    return found


@pytest.mark.parametrize(
    "way", sampled(WAYS, ["plain", "in another order, in two processes", "--dist load"])
)
def test_every_way_runs_the_same_cells_once(
    way: str, plain: dict[str, str], tmp_path: Path
) -> None:
    shuffled, *arguments = WAYS[way]
    run = suite(
        *(tmp_path, *arguments, *CHOSEN),
        faults=FAULTS,
        plugins={"noting": NOTING} | ({"shuffling": SHUFFLING} if shuffled else {}),
        NOTES=str(tmp_path / "notes"),
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert outcomes(tmp_path / "junit.xml") == plain
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(notes) == len({cell for cell, _ in notes}) == 8
    if not shuffled:  # one backend after the other, and one process at a time
        assert all(len(alive) <= 1 for _, alive in notes)


def test_a_lost_process_of_xdist_fails_one_test(tmp_path: Path, wording: Wording) -> None:
    """What it was at is failed and not run again; the rest of the cell is run by another one."""
    dying = (
        "import os\nfrom harness.checking.engine import Engine\n\nright = Engine.run_cell\n\n"
        "def run_cell(engine, cell, *more):\n"
        "    if cell.dtype == 'float32' and not os.path.exists('died'):\n"
        "        open('died', 'w').close()\n        os._exit(1)\n"
        "    return right(engine, cell, *more)\n\nEngine.run_cell = run_cell\n"
    )
    arguments = ("--backend", "numpy", *specs(SPECS[0]), "-k", "loss or outputs", "-n", "2")
    variables = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    arguments = (*arguments, "--junitxml", "junit.xml")
    run = suite(tmp_path, *arguments, plugins={"dying": dying}, **variables)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "1 failed, 3 passed" in run.stdout
    found = outcomes(tmp_path / "junit.xml")
    assert Counter(found.values()) == {"": 3, "error": 1}
    text = (tmp_path / "summary.md").read_text()
    wording.line(text, "1 ... 3")
    assert "crashed while running" in text


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "in two processes"])
def test_what_ends_a_cell_fails_all_its_tests_at_once(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    """A limit of time of a plugin comes in the middle of a cell: no test of it begins anew."""
    limiting = (
        "import pytest\nfrom harness.checking.engine import Engine\n\n"
        "def run_cell(engine, cell, *_):\n"
        "    with open('begun', 'a') as begun:\n        begun.write(f'{cell}\\n')\n"
        "    pytest.fail('Timeout (>1.0s) from pytest-timeout.')\n\nEngine.run_cell = run_cell\n"
    )
    arguments = ("--backend", "numpy", *specs(SPECS[0]), "-k", "loss or outputs", *more)
    run = suite(tmp_path, *arguments, plugins={"limiting": limiting})
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert "4 failed" in run.stdout
    begun = (tmp_path / "begun").read_text().splitlines()
    assert len(begun) == len({*begun}) == 2
    assert run.stdout.count("native ended with an exception: Failed: Timeout (>1.0s)") == 2


def test_names_are_the_same_wherever_it_is_run(tmp_path: Path) -> None:
    """Of another folder, under a project's own settings and with a prefix."""
    project = tmp_path / "project"
    (project / "below").mkdir(parents=True)
    (project / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "other").mkdir()
    arguments = ("--backend", "numpy", *specs(SPECS[0]), "--junitxml", "junit.xml", "-k", "loss")
    for folder in (tmp_path / "other", project / "below"):
        run = suite(folder, *arguments, "--junit-prefix", "shard")
        assert run.returncode == pytest.ExitCode.OK, run.stdout
        assert list(outcomes(folder / "junit.xml")) == [
            f"shard.harness.suite.test_checks test_check[numpy-{SPECS[0]}-{dtype}-loss]"
            for dtype in ("float64", "float32")
        ]


def test_a_printed_name_runs_that_test(tmp_path: Path) -> None:
    given = {"faults": {f"{SPECS[0]} float64": "wrong_shape"}}
    arguments = ("--backend", "faulty-numpy", *specs(SPECS[0]))
    run = suite(tmp_path, *arguments, "-k", "outputs or loss", **given)
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("FAILED "))
    name = line.split()[1]
    again = suite(tmp_path, *arguments, **given, tests=name)
    assert "1 failed" in again.stdout
    assert "passed" not in again.stdout


@pytest.mark.parametrize("option", ["--lf", "--ff", "--sw", "--nf"])
def test_what_failed_before_is_found_again(option: str, tmp_path: Path) -> None:
    given = {"faults": {f"{SPECS[0]} float32": "wrong_shape"}, "cache": True}
    arguments = ("--backend", "faulty-numpy", *specs(SPECS[0]), "-k", "outputs or loss", "-v")
    assert "1 failed, 3 passed" in suite(tmp_path, *arguments, **given).stdout
    run = suite(tmp_path, *arguments, option, **given)
    assert run.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    shown = [line for line in run.stdout.splitlines() if "::test_check[" in line and "%" in line]
    assert len(shown) == {"--lf": 1, "--sw": 3}.get(option, 4)
    if option in ("--lf", "--ff"):
        assert "float32-outputs] FAILED" in shown[0]


@pytest.mark.parametrize("option", ["--fixtures", "--markers", "--version", "--help"])
def test_what_runs_nothing_asks_for_no_backend(option: str, tmp_path: Path) -> None:
    run = suite(tmp_path, option)
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert "which backend" not in run.stdout + run.stderr
    words = {"--fixtures": "cells [session scope]", "--help": "--harness-spec=SPEC"}
    assert words.get(option, "pytest") in run.stdout + run.stderr


def test_other_sessions_do_not_have_the_options(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--help"]
    other = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--harness-spec" not in other.stdout
