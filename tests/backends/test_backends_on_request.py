"""The backends array-api-strict and pytensor agree with the oracle, and a planted fault in each of
them is found."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from installed_plugins import install_plugin
from needed import need
from sampling import sampled

import harness
from harness.runtime.hookspecs import ENTRY_POINT_GROUP, ON_REQUEST

need("array_api_strict", "pytensor")

THEANO = ("theano_rnn", "theano_gru", "theano_gru_combined")
OTHERS = (
    *("three_char", "first_rnn", "simple_rnn", "sequence_unrolled", "sequence_rnn"),
    *("sequence_onehot", "stateful_lstm", "pure_python_rnn", "keras_gru"),
)
PLUGIN = """\
from importlib import import_module
from harness.extend import hookimpl

@hookimpl
def harness_backend(name):
    _, family, fault = name.split("-")
    backend = import_module(f"harness.backends.{family}.backend").harness_backend(name)
    backend.name = name
    kind = "kernels" if family == "pytensor" else "primitives"
    table = dict(getattr(backend, kind))
    right = table["matmul"]
    if fault == "value":
        table["matmul"] = lambda a, b: right(a, b) * 1.0001
    elif fault == "gradient":
        from pytensor.gradient import grad_scale
        table["matmul"] = lambda a, b: right(grad_scale(a, 1.0001), b)
    setattr(backend, kind, table)
    return backend
"""
# By backend and fault: the checks that differ.
FAULTS: dict[str, set[str]] = {
    "array_api_strict-none": set(),
    "array_api_strict-value": {"outputs", "loss", "gradients"},
    "pytensor-none": set(),
    "pytensor-value": {"outputs", "loss", "gradients"},
    "pytensor-gradient": {"gradients"},
}


@pytest.mark.parametrize(
    ("name", "system", "dtype"),
    sampled(
        list(product(("pytensor", "array-api-strict"), (*THEANO, *OTHERS), ("float64", "float32"))),
        [
            ("pytensor", "theano_rnn", "float64"),
            ("pytensor", "theano_gru_combined", "float32"),
            ("array-api-strict", "three_char", "float64"),
            ("array-api-strict", "theano_rnn", "float32"),
        ],
    ),
)
def test_a_backend_passes_every_check(name: str, system: str, dtype: str) -> None:
    report = harness.check(f"lesson6/{system}", name, dtypes=dtype)
    assert report.exit_code == 0, str(report)
    assert [result.verdict for result in report.results] == ["agree"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, group = "harness_planted_fault", ENTRY_POINT_GROUP + ON_REQUEST
    install_plugin(monkeypatch, tmp_path, module, PLUGIN, f"planted-{fault}", group=group)
    report = harness.check(
        "lesson6/theano_rnn",
        f"planted-{fault}",
        dtypes="float64",
        checks="values",
        sizes={"hidden": 5},
    )
    (result,) = report.results
    wrong = {finding.check for finding in result.findings if finding.verdict == "differ"}
    assert wrong == FAULTS[fault], str(report)


def test_pytensor_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTENSOR_FLAGS", f"base_compiledir={tmp_path / 'compiled'}")
    report = harness.check("lesson6/three_char", "pytensor", dtypes="float64", checks="values")
    assert report.exit_code == 0, str(report)
    assert not (tmp_path / "compiled").exists()


def test_a_model_that_needs_erf_is_not_in_the_standard() -> None:
    report = harness.check("mlp", "array-api-strict", dtypes="float64", checks="values")
    (result,) = report.results
    assert result.verdict == "unsupported"
    assert "erf" in result.findings[0].detail


@pytest.mark.parametrize("name", ["array-api-strict", "pytensor"])
def test_training_gives_the_losses_of_numpy(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("what is here is a text of few words; " * 20, encoding="utf-8")
    found, expected = (
        harness.train(
            "lesson6/keras_gru", backend, text=text, epochs=1, sizes={"hidden": 8}
        ).history
        for backend in (name, "numpy")
    )
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)
