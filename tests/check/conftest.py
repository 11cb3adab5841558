"""What the tests of histories share."""

from __future__ import annotations

from pathlib import Path

import pytest
from remembered_runs import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is complete, and known to be remembered."""
    run = Run(tmp_path)
    monkeypatch.syspath_prepend(run.site)
    monkeypatch.setenv("PYTHONPATH", str(run.site))
    assert len(run().ran) == 6
    assert run.report.exit_code == 0
    again = run()
    assert (again.ran, again.reasons, run.starts) == ([], [], 0)
    assert (run.report.exit_code, len(run.report.results)) == (0, 6)
    assert len(run.files) == 1, "a run that adds nothing leaves no file"
    return run
