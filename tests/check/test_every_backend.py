"""The backends that come with the harness, through every check."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ratios import BACKENDS
from sampling import sampled

# What compiles for minutes runs its equations on request.
QUICK = ("numpy", "torch", "jax")
CASES = sampled(
    itertools.product(BACKENDS, ("native", "native,equations")),
    [(name, "native,equations" if name in QUICK else "native") for name in BACKENDS],
)
HARNESS = Path(sys.executable).with_name("harness")


@pytest.mark.parametrize(("backend", "paths"), CASES)
def test_every_check_agrees_on_every_path(backend: str, paths: str) -> None:
    spec = "lesson6/sequence_rnn"
    command = [
        str(HARNESS),
        "check",
        spec,
        "--backend",
        backend,
        "--path",
        paths,
        "--json",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    results = json.loads(run.stdout)["results"]
    assert run.returncode == 0, run.stderr
    both = ("float64", "float32")
    made = {"outputs": both, "gradients": both, "pipeline-training": ("float64",)}
    for check, dtypes in {**made, "trained": ("float32",)}.items():
        cells = {(r["dtype"], r["path"]) for r in results if r["check"] == check}
        assert cells >= {(dtype, "native") for dtype in dtypes}
        assert {dtype for dtype, _ in cells} == set(dtypes)
