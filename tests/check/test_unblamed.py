"""Sizes and models at which honest backends were once blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.check.events import Report

SPECS = Path(__file__).parents[1] / "support" / "odd_models"
# (system, options): numpy runs all of them, torch those that its own layers once failed.
SIZES = [
    ("sequence_unrolled", {"sizes": {"hidden": 256}, "dtypes": ("float32",)}, "pipeline", "numpy"),
    (
        "simple_rnn",
        {"sizes": {"time": 100}, "dtypes": ("float32",), "seed": 1},
        "saturation",
        "numpy",
    ),
    ("first_rnn", {"dtypes": ("float64",), "seed": 148}, "training,pipeline", "numpy,torch"),
    ("first_rnn", {"sizes": {"vocab": 2}, "dtypes": ("float64",)}, "*", "numpy"),
    ("sequence_onehot", {"sizes": {"hidden": 1}, "seed": 1}, "causality", "numpy"),
    ("sequence_onehot", {"sizes": {"vocab": 1}}, "causality", "numpy"),
    ("stateful_lstm", {"sizes": {"time": 1}, "dtypes": ("float32",)}, "embedding-rows", "torch"),
    ("stateful_lstm", {"sizes": {"batch": 1, "time": 1}, "seed": 1}, "kinks", "torch"),
]


def faults(report: Report) -> list[str]:
    return [
        f"{result.cell}: {f.check}: {f.verdict}: {f.detail}"
        for result in report.results
        for f in result.findings
        if f.verdict not in ("agree", "not-applicable")
    ]


@pytest.mark.parametrize(("system", "options", "checks", "backends"), SIZES)
def test_no_size_is_blamed(
    system: str, options: dict[str, object], checks: str, backends: str
) -> None:
    wanted = {"backends": backends.split(","), "checks": tuple(checks.split(",")), **options}
    report = harness.check(f"lesson6/{system}", **wanted)  # type: ignore[arg-type]
    assert faults(report) == []
    assert any(f.verdict == "agree" for r in report.results for f in r.findings)


def silent(report: Report) -> set[str]:
    """The checks that had nothing to compare, in any cell."""
    findings = [f for result in report.results for f in result.findings]
    return {f.check for f in findings if f.verdict == "not-applicable"}


@pytest.mark.parametrize(
    ("model", "unanswered"),
    [
        ("bias_before_norm", set()),
        ("bidirectional", set()),
        ("time_major", set()),
        ("mixing", {"batch-independence"}),
        # Its loss is infinite in float32, whoever computes it.
        ("growing", {"loss", "gradients"}),
    ],
)
def test_no_model_is_blamed(model: str, unanswered: set[str]) -> None:
    report = harness.check(str(SPECS / f"{model}.yaml"), ["numpy", "torch"], paths=("derived",))
    assert faults(report) == []
    assert silent(report) == unanswered
