"""Exported code runs in a process without the harness, and its gradients are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.arrays import Arrays
from harness.convert.agreement import Batch, draw_batches
from harness.convert.formats import Exported, Script
from harness.convert.run import exported_of, run_alone
from harness.convert.standalone import Compared, compare_alone
from harness.convert.weights import Weights
from harness.errors import CouldNotRun
from harness.language.model import fingerprint, load_spec

SPEC = """
model: small
summary: A dense layer.
source: A test.
inputs:
  x: {shape: [batch, 3]}
layers:
  out: {layer: dense, units: 4}
equations: |
  y = out(x)
"""
# The code of an export; its framework is numpy.
MODULE = """
import numpy as np

def load():
    with np.load(FOLDER / "w.npz") as arrays:
        return dict(arrays)
"""
SOURCE = """
def run(inputs, state, cotangents):
    weights, x = load(), inputs["x"].astype("f4")
    results = {"output.y": x @ weights["W"] + weights["b"]}
    for name, along in cotangents.items():
        results["gradient.out/W"] = x.T @ along.astype("f4")
        results["gradient.out/b"] = along.astype("f4").sum(0)
    return results
"""


@pytest.fixture
def export(tmp_path: Path) -> tuple[Exported, list[Batch]]:
    """The model with its weights, and the batches that compare its export."""
    (tmp_path / "small.yaml").write_text(SPEC)
    spec = load_spec(str(tmp_path / "small.yaml"))
    draw = np.random.default_rng(0)
    parameters = {"out.W": draw.normal(size=(3, 4)), "out.b": draw.normal(size=4)}
    narrow = {n: a.astype("f4") for n, a in parameters.items()}
    np.savez(tmp_path / "w.npz", W=narrow["out.W"], b=narrow["out.b"])
    weights = Weights(spec.name, fingerprint(spec), dict(spec.program().sizes), narrow, {})
    return exported_of(spec, weights), draw_batches(spec, weights, 0, gradients=True)


def compared(
    folder: Path, export: tuple[Exported, list[Batch]], source: str, scripted: bool = True
) -> Compared:
    def script(gradients: Arrays) -> Script:
        renamed = {n.replace(".", "/"): a for n, a in gradients.items()}
        return Script(MODULE, source, renamed if scripted else {})

    (folder / "found.npz").unlink(missing_ok=True)
    return compare_alone(script, *export, folder, run_alone("numpy", None, 60.0))


def test_wrong_gradients_of_an_export_are_found(
    tmp_path: Path, export: tuple[Exported, list[Batch]]
) -> None:
    right = compared(tmp_path, export, SOURCE)
    assert (right.outputs.agrees, right.outputs.comparisons) == (True, 2)
    assert right.gradients is not None
    assert (right.gradients.agrees, right.gradients.comparisons) == (True, 2)
    for wrong in ("1.0001 * x.T", "0 * x.T"):
        planted = compared(tmp_path, export, SOURCE.replace("x.T", wrong)).gradients
        assert planted is not None
        assert (planted.agrees, planted.worst.name) == (False, "gradient.out/W")
    without = SOURCE.replace('"gradient.out/b"', '"gradient.other"')
    missing = compared(tmp_path, export, without).gradients
    assert missing is not None
    assert (missing.agrees, missing.worst.name) == (False, "gradient.out/b")
    assert compared(tmp_path, export, SOURCE, scripted=False).gradients is None


def test_an_export_that_imports_the_harness_fails(
    tmp_path: Path, export: tuple[Exported, list[Batch]]
) -> None:
    with pytest.raises(CouldNotRun, match="harness"):
        compared(tmp_path, export, f"import harness\n{SOURCE}")


def test_a_signal_that_ended_an_export_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ended.py"
    file.write_text(
        "import os, signal\nprint('begun', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    printed = run_alone("numpy", None, 60.0)(file).splitlines()
    assert printed[0] == "begun"
    assert "SIGSEGV" in printed[-1]
