"""A page of thousands of cells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import report_files

CELLS = 2000


def test_a_page_of_thousands_of_cells_is_made(tmp_path: Path) -> None:
    run = report_files.records(tmp_path / "run.jsonl")
    # On one device, as backends beside each other.
    report_files.changed(run, run, {"device": "cpu"}, backend="mutants-1")
    report_files.many(run, tmp_path / "many.jsonl", CELLS)
    command = shutil.which("harness", path=os.fspath(Path(sys.executable).parent))
    assert command is not None
    words = [command, "report", "many.jsonl", "-o", "many.html"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert "<h1>1000 of 2000 cells differ</h1>" in (tmp_path / "many.html").read_text()
