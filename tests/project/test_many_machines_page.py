"""docs/many-machines.md: its scripts are ones, and what they run does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import DOCS
from wording import Wording
from workflow_steps import run_step

from harness.results.file import read_records

PAGE = (DOCS / "many-machines.md").read_text(encoding="utf-8")
BATCH = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)[0]
WRAPPED = re.findall(r'--wrap "(.*?)"', PAGE)[0]
# YAML 1.1 takes the key `on` for true.
WORKFLOW: dict[Any, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
# Two specs in two dtypes; numpy stands for all backends.
CELLS = 4


def run(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script in bash, with tiny cells."""
    script = script.replace("--backend numpy,torch", "--backend numpy --check loss")
    return run_step(script, folder, **variables)


@pytest.mark.slow
def test_the_array_of_slurm_runs_every_cell_once(tmp_path: Path, wording: Wording) -> None:
    assert "#SBATCH --array=1-4\n" in BATCH
    for task in range(1, 5):
        if task == 4:
            merged = run(WRAPPED, tmp_path)
            assert merged.returncode == 3
            wording.line(merged.stdout, "3 ... 4 ... 4/4; 1")
            (tmp_path / "all.jsonl").unlink()
        done = run(BATCH, tmp_path, SLURM_ARRAY_TASK_ID=str(task))
        assert done.returncode == 0, done.stderr
    merged = run(WRAPPED, tmp_path)
    assert merged.returncode == 0, merged.stderr
    cells = read_records(tmp_path / "all.jsonl").ended
    assert len(cells) == CELLS
    # A task that is run again has nothing left to do.
    again = run(BATCH, tmp_path, SLURM_ARRAY_TASK_ID="1")
    assert "(1 kept: 1 from 20" in again.stdout


def step(job: str, name: str) -> str:
    (found,) = [s["run"] for s in WORKFLOW["jobs"][job]["steps"] if s.get("name") == name]
    return str(found)


@pytest.mark.slow
def test_the_matrix_runs_every_cell_once(tmp_path: Path) -> None:
    shards = WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["shard"]
    for shard in shards:
        script = step("check", "Check").replace("${{ matrix.shard }}", str(shard))
        assert "${{" not in script
        done = run(script, tmp_path)
        assert done.returncode == 0, done.stderr
    done = run(step("report", "Merge"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(read_records(tmp_path / "all.jsonl").ended) == CELLS
    assert (tmp_path / "report.html").exists()


def test_the_workflow_has_the_form_of_one() -> None:
    assert set(WORKFLOW) == {"name", True, "env", "jobs"}
    for job in WORKFLOW["jobs"]:
        assert " @ $HARNESS" in step(job, "Install")
    assert WORKFLOW["jobs"]["report"]["needs"] == "check"
    for job in WORKFLOW["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        for found in job["steps"]:
            assert ("run" in found) != ("uses" in found)
            assert set(found) <= {"name", "run", "uses", "with", "if"}
    made, kept = step("check", "Check"), WORKFLOW["jobs"]["check"]["steps"][-1]["with"]
    assert kept["path"] in made
    pattern = WORKFLOW["jobs"]["report"]["steps"][2]["with"]["pattern"]
    assert kept["name"].startswith(pattern.rstrip("*"))


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^harness .*?(?=\s+#|$)", PAGE, re.MULTILINE)))
)
def test_other_commands_have_the_options_that_are_shown(line: str) -> None:
    program, command, *words = line.split()
    told = subprocess.run(
        [str(Path(sys.executable).parent / program), command, "--help-all"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(word in told for word in words if word.startswith("-"))
