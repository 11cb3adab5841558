"""docs/framework-versions.md says what was run, and nothing else."""

from __future__ import annotations

import json

import framework_versions
from wording import Wording


def test_the_page_is_that_of_the_record() -> None:
    kept = json.loads(framework_versions.RECORD.read_text())
    assert framework_versions.PAGE.read_text() == framework_versions.page(kept), (
        "run python tests/benchmarks/framework_versions.py"
    )


def test_what_was_not_run_and_what_differs_are_told(wording: Wording) -> None:
    cell = {"verdict": "differ", "digits": 3.14, "fault": "loss: it is wrong"}
    jax = {
        "columns": {"jax@0.9.2": {"cells": {"lesson6/three_char": {"float32": cell}}}},
        "pairs": {},
        "speed": {},
    }
    jax["columns"]["jax@0.9.2"]["versions"] = {"jax": "0.9.2"}
    shown = framework_versions.page({"jax": jax})
    assert "jax@0.9.2 (1/24)" in shown
    assert "| three_char | - | **differ** 3.1 | - | - | - |" in shown
    wording.line(shown, "jax@0.9.2: lesson6/three_char float32: `loss ... wrong`")
    assert shown.count("Not run yet.") == 2
    wording.line(shown, "were not measured")
