"""The workflow for other systems names what is there, and its commands run on a played Windows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT, SUPPORT
from workflow_steps import run_step

WORKFLOW: dict[str, Any] = yaml.safe_load(
    (ROOT / ".github/workflows/systems.yaml").read_text("utf-8")
)
JOBS = WORKFLOW["jobs"]


def scripts(job: str) -> dict[str, str]:
    return {step["name"]: step["run"] for step in JOBS[job]["steps"] if "run" in step}


def test_linux_and_macos_run_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert JOBS["posix"]["strategy"]["matrix"]["system"] == ["ubuntu-latest", "macos-latest"]
    commands = [script.split() for script in scripts("posix").values()]
    assert commands == [["make", "check"], ["make", "test-quick"]]
    assert all(f"\n{target}: " in makefile for _, target in commands)


@pytest.mark.pages  # eleven starts of the command
def test_the_commands_for_windows_run_without_what_windows_lacks(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/golden/results", tmp_path / "tests/golden/results")
    played = {"PYTHONPATH": str(SUPPORT / "other_systems"), "PLAYED": "windows"}
    done = run_step(scripts("windows")["Commands"], tmp_path, **played)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "report.html").exists()


def test_the_tests_for_windows_are_there() -> None:
    words = scripts("windows")["Test"].split()
    named = [word for word in words if word.startswith("tests/")]
    assert len(named) == 3
    assert all((ROOT / name).exists() for name in named)
