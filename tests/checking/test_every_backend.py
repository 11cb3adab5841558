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
QUICK = ("numpy", "torch")
CASES = sampled(
    itertools.product(BACKENDS, ("native", "native,equations")),
    [(name, "native,equations" if name in QUICK else "native") for name in BACKENDS],
)
NARROW = sampled(BACKENDS, ["numpy"])
HARNESS = Path(sys.executable).with_name("harness")


@pytest.mark.parametrize("backend", NARROW)
def test_products_in_bfloat16_and_float16_agree_and_all_else_is_float32(backend: str) -> None:
    dtypes = ("bfloat16", "float16")
    checks = ("values", "cotangents", "pipeline*", "functions", "optimizer-steps", "initial-values")
    command = [str(HARNESS), "check", "lesson6/sequence_rnn", "--backend", backend, "--json"]
    command += ["--timeout", "500"]
    command += [word for dtype in dtypes for word in ("--dtype", dtype)]
    command += [word for check in checks for word in ("--check", check)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    found = {(r["check"], r["dtype"]): r["verdict"] for r in json.loads(run.stdout)["results"]}
    for check in ("outputs", "gradients", "pipeline-forward", *checks[3:]):
        assert {found[check, dtype] for dtype in dtypes} == {"agree"}


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
