"""docs/ci.md: the workflow is one, its commands run, and what the page says of them is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import DOCS, SPECS
from record_lines import lines_of
from workflow_steps import run_step

pytestmark = pytest.mark.pages
PAGE = (DOCS / "ci.md").read_text(encoding="utf-8")
TEXT = PAGE.partition("```yaml\n")[2].partition("```")[0]
# YAML 1.1 takes the key `on` for true.
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["check"]["steps"]
SGD = "{optimizer: sgd, learning_rate: 0.001}"
RUN = {step["name"]: step["run"] for step in STEPS if "run" in step}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model and a layer of its own."""
    folder = tmp_path_factory.mktemp("repository")
    for kind, name, shipped, changes in (
        ("layers", "leaky", "layers/simple_rnn", {"layer: simple_rnn": "layer: leaky"}),
        (
            "models",
            "small",
            "models/lesson6/simple_rnn",
            {
                "model: lesson6/simple_rnn": "model: small",
                "layer: simple_rnn": "layer: leaky",
                "parameters: 102258\n": "",
                "hidden: 256": "hidden: 8",
                # Without slots, a few steps show all of an optimizer.
                "{optimizer: adam_epsilon_hat, learning_rate: 0.001, epsilon: 1.0e-8}": SGD,
            },
        ),
    ):
        text = (SPECS / f"{shipped}.yaml").read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "my_models" / kind).mkdir(parents=True)
        (folder / "my_models" / kind / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def step(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it: by bash, which stops at the first failure; numpy stands for all."""
    script = RUN[name].replace(" --backend torch", "").replace("numpy,torch", "numpy")
    script = script.replace("pytest ", f"{shlex.quote(sys.executable)} -m pytest ")
    assert script != RUN[name] or "torch" not in script
    variables = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / f"{name}.md"),
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    return run_step(script, folder, **variables)


def summary(name: str, folder: Path) -> str:
    return (folder / f"{name}.md").read_text(encoding="utf-8")


def test_the_workflow_has_the_form_of_one() -> None:
    assert set(WORKFLOW) == {"name", True, "env", "jobs"}
    assert "[torch] @ $HARNESS" in RUN["Install"]
    assert set(WORKFLOW[True]) == {"push", "pull_request"}
    assert WORKFLOW["jobs"]["check"]["runs-on"] == "ubuntu-latest"
    for found in STEPS:
        assert ("run" in found) != ("uses" in found)
        assert set(found) <= {"name", "run", "uses", "with", "if"}
        assert "uses" not in found or found["uses"].count("@") == 1
    assert "\t" not in TEXT


def test_the_steps_run_and_leave_what_is_kept(repository: Path) -> None:
    run = step("Check", repository)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "since" not in run.stdout
    assert len(lines_of(repository / "run.jsonl", "end")) == 1
    assert summary("Check", repository).startswith("### harness check: 1 cell: 1 agree")
    assert step("Main branch", repository).returncode == 0
    # And again, with a baseline.
    run = step("Check", repository)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "since main.jsonl: nothing changed" in run.stdout
    run = step("Suite", repository)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.match(r"### harness suite: \d+ passed, \d+ skipped\n", summary("Suite", repository))
    cases = ET.parse(repository / "junit.xml").iter("testcase")
    assert all("[numpy-small-float64-" in case.get("name", "") for case in cases)
    kept = next(s["with"]["path"] for s in STEPS if "artifact" in s.get("uses", "")).split()
    assert {"run.jsonl", "junit.xml"} <= set(kept)
    assert all((repository / name).exists() for name in kept if name != "failures")


@pytest.mark.parametrize(
    "command",
    [
        shlex.split(line.partition("#")[0])
        for line in PAGE.rpartition("```\n")[0].rpartition("```\n")[2].splitlines()
        if line.startswith("harness ")
    ],
    ids=lambda command: command[1],
)
def test_other_commands_have_the_options_that_are_shown(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    told = subprocess.run(
        [str(program), command[1], "--help-all"], capture_output=True, text=True, check=True
    ).stdout
    options = {part for part in command if part.startswith("--")}
    assert options
    assert all(option in told for option in options)


def test_the_package_and_its_extra_are_named_as_they_are() -> None:
    name, further = shlex.split(RUN["Install"])[2:]
    assert further == "pytest-xdist"
    project = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'name = "{name.partition("[")[0]}"' in project
    assert "\ntorch = [" in project
