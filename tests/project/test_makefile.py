"""``make report``: a check, a bench and one page of both, in one command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.pages


def test_one_command_makes_the_page_of_a_check_and_a_bench(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "check.jsonl").write_text("of the last time")
    small = "--size hidden=4 --backend numpy"
    command = ["make", "--directory", str(ROOT), "--old-file", "install", "report"]
    # A check that is not done in time ends neither the bench nor the page.
    command += [
        f"BIN={Path(sys.executable).parent}",
        f"RUNS={tmp_path / 'runs'}",
        f"REPORT={tmp_path / 'report.html'}",
        f"CHECK=lesson6/simple_rnn {small} --check outputs --timeout 0.001",
        f"BENCH=lesson6/simple_rnn {small} --batch 2 --mode forward --path derived --rounds 1",
    ]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("Conformance", "Speed"):
        assert re.search(rf"<h2[^>]*>[^<]*{heading}", page), heading
    assert "timeout" in page
