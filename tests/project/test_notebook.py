"""The notebook of the documentation runs from its first cell to its last, in a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import DOCS

pytestmark = pytest.mark.pages
NOTEBOOK = DOCS / "notebook.ipynb"
# In a process of its own: what Jupyter's parts warn of is not for our tests to hear.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_is_kept_without_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    made = tmp_path / "ran.ipynb"
    command = [sys.executable, "-c", RUN, str(NOTEBOOK), str(made)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    cells = json.loads(made.read_text(encoding="utf-8"))["cells"]
    shown = [
        "".join(output["data"].get("text/html", []))
        for cell in cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "execute_result"
    ]
    tables = [html for html in shown if html.startswith('<div class="harness-table">')]
    assert len(tables) == 6  # spec, report, pass, training, text and speeds
    printed = [
        o["text"] for c in cells for o in c.get("outputs", []) if o["output_type"] == "stream"
    ]
    assert any("did you mean 'torch'?" in "".join(text) for text in printed)
