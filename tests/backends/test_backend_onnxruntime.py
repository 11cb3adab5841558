"""The backend onnxruntime agrees and trains, and the checks find a wrong ONNX node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from installed_plugins import install_plugin
from needed import need
from texts import FOX

import harness

need("onnx", "onnxruntime")
CHECKS = ["functions", "values", "training", "nan"]
# Backends in which one primitive has a wrong ONNX node, and the check that finds the fault.
FAULTS = {"tanh": "outputs", "segment_sum": "gradients", "max": "functions", "sin": "functions"}
PLANTED = """
from harness.backends.onnx.primitives_export import OPERATORS
from harness.backends.onnxruntime.backend import OnnxRuntime
from harness.extend import hookimpl

def softsign(graph, node, inputs, output):
    graph.emit("Softsign", inputs, output)

def sum_of_sizes(graph, node, inputs, output):
    sizes = graph.emit("Abs", inputs[:1])
    OPERATORS["segment_sum"](graph, node, [sizes, inputs[1]], output)

@hookimpl
def harness_backend(name):
    backend, op = OnnxRuntime(), name.removeprefix("wrong-")
    wrong = {**OPERATORS, "tanh": softsign, "segment_sum": sum_of_sizes}[op]
    backend.name, backend.operators = name, {**backend.operators, op: wrong}
    return backend
"""


@pytest.mark.slow
def test_models_agree() -> None:
    """A recurrence with a state, convolutions, and indices that are sorted."""
    models = ["lesson6/stateful_lstm", "lenet", "moe"]
    report = harness.check(models, "onnxruntime", checks=CHECKS)
    found = {(r.cell.spec, r.cell.dtype): r.verdict for r in report.results}
    assert found == {(m, d): "agree" for m in models for d in ("float64", "float32")}


@pytest.mark.slow
def test_a_wrong_node_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = [f"wrong-{op}" for op in FAULTS]
    install_plugin(monkeypatch, tmp_path, "harness_planted", PLANTED, *backends)
    models = ["lesson6/three_char", "mlp"]  # only mlp needs optional primitives, such as sin
    report = harness.check(models, backends, dtypes="float64", checks=["functions", "values"])
    found = {
        (r.cell.backend, f.check)
        for r in report.results
        for f in r.findings
        if f.verdict == "differ"
    }
    assert {(f"wrong-{op}", check) for op, check in FAULTS.items()} <= found


def test_training_gives_the_losses_of_numpy(tmp_path: Path) -> None:
    """keras_gru reads one-hot vectors, which a primitive makes of indices outside of a graph."""
    text = tmp_path / "text.txt"
    text.write_text(20 * FOX)
    histories = [
        harness.train(
            "lesson6/keras_gru",
            backend,
            text=text,
            epochs=2,
            batch=8,
            sizes={"hidden": 4},
            dtype="float64",
            proof=False,
        ).history
        for backend in ("numpy", "onnxruntime")
    ]
    losses = np.array([[epoch["loss"] for epoch in history] for history in histories])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    assert losses[0, 1] < losses[0, 0]


def test_a_dtype_without_kernels_is_unsupported() -> None:
    report = harness.check("lesson6/three_char", "onnxruntime", dtypes="bfloat16", checks="values")
    assert [r.verdict for r in report.results] == ["unsupported"]
