"""How long it takes to make a page."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import report_files

CELLS, MOST, TRIES = 2000, 2.0, 5


@pytest.mark.alone
def test_a_page_of_thousands_of_cells_is_made_soon(tmp_path: Path) -> None:
    """In processor time of the whole command, its start and its imports too."""
    run = report_files.records(tmp_path / "run.jsonl")
    # On one device, as backends beside each other.
    report_files.changed(run, run, {"device": "cpu"}, backend="mutants-1")
    report_files.many(run, tmp_path / "many.jsonl", CELLS)
    command = shutil.which("harness", path=os.fspath(Path(sys.executable).parent))
    assert command is not None
    taken = []
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [command, "report", "many.jsonl", "-o", "many.html"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if taken[-1] < MOST:
            break
    print(f"{CELLS} cells in {min(taken):.2f} s of processor time")
    assert min(taken) < MOST, taken
    assert "<h1>1000 of 2000 cells differ</h1>" in (tmp_path / "many.html").read_text()
