"""The backends that come with the harness, through every check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ratios import BACKENDS

HARNESS = Path(sys.executable).with_name("harness")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_check_agrees_on_every_path(backend: str) -> None:
    spec = "lesson6/sequence_rnn"
    command = [str(HARNESS), "check", spec, "--backend", backend, "--path", "both", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    results = json.loads(run.stdout)["results"]
    assert run.returncode == 0, run.stderr
    for check in ("outputs", "gradients", "pipeline-forward", "pipeline-training"):
        cells = {(r["dtype"], r["path"]) for r in results if r["check"] == check}
        assert cells >= {("float64", "native"), ("float32", "native")}
