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

CELLS, TRIES = 2000, 5
# Seconds that a page may take, where a processor takes so many for a loop of ten million additions;
# on a slower one in proportion.
MOST, LOOP = 2.0, 0.5
ADDITIONS = "total = 0\nfor i in range(10_000_000): total += i"


def processor_time(command: list[str], folder: Path) -> float:
    """Seconds of processors that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.alone
def test_a_page_of_thousands_of_cells_is_made_soon(tmp_path: Path) -> None:
    """In processor time of the whole command, its start and its imports too."""
    run = report_files.records(tmp_path / "run.jsonl")
    # On one device, as backends beside each other.
    report_files.changed(run, run, {"device": "cpu"}, backend="mutants-1")
    report_files.many(run, tmp_path / "many.jsonl", CELLS)
    command = shutil.which("harness", path=os.fspath(Path(sys.executable).parent))
    assert command is not None
    words = [command, "report", "many.jsonl", "-o", "many.html"]
    shares = []
    for _ in range(TRIES):
        loop = processor_time([sys.executable, "-c", ADDITIONS], tmp_path)
        allowed = MOST * max(1.0, loop / LOOP)
        shares.append(processor_time(words, tmp_path) / allowed)
        if shares[-1] < 1:
            break
    print(f"{CELLS} cells in {min(shares):.2f} of the processor time that is allowed")
    assert min(shares) < 1, shares
    assert "<h1>1000 of 2000 cells differ</h1>" in (tmp_path / "many.html").read_text()
