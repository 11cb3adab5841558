"""A column's label is taken at its word where it is a version."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from wording import Wording

from harness.runtime.labels import backend_of, contradiction
from harness.worker.launch import Launch
from harness.worker.worker import Worker


@pytest.mark.parametrize(
    ("column", "versions"),
    [
        ("torch@2.6", {"torch": "2.6.0+cpu", "numpy": "1.26.0"}),
        ("torch@2.6.0", {"torch": "2.6.0"}),
        ("torch@2.6", {"torch": "2.6.0.dev20260101"}),
        ("jax@0.12.0.1", {"jax": "0.12.0.1"}),
        ("keras-torch@3.12", {"keras": "3.12.4", "torch": "2.9.0"}),
        ("other@1.4", {"framework": "1.4.2", "numpy": "2.0.0"}),
        ("torch@nightly", {"torch": "2.6.0"}),
        ("torch@2", {"torch": "1.0"}),
        ("torch", {"torch": "1.0"}),
        ("torch@2.6", {}),
    ],
)
def test_a_label_that_fits_or_says_nothing(column: str, versions: dict[str, str]) -> None:
    assert contradiction(column, versions) == ""


@pytest.mark.parametrize(
    ("column", "versions", "told"),
    [
        ("torch@2.6", {"torch": "2.9.0+cpu", "numpy": "2.6.0"}, "torch 2.9.0+cpu"),
        ("torch@2.6", {"torch": "2.60.0"}, "torch 2.60.0"),
        ("keras-torch@2.9", {"keras": "3.12.4", "torch": "2.9.0"}, "keras 3.12.4"),
        ("other@1.4", {"framework": "1.3", "numpy": "2.0"}, "framework 1.3, numpy 2.0"),
        ("torch@2.6", {"torch": "no version at all"}, "torch no version at all"),
    ],
)
def test_a_label_that_is_contradicted(
    column: str, versions: dict[str, str], told: str, wording: Wording
) -> None:
    wording(contradiction(column, versions), f"{column} ... {told}")


def test_a_worker_of_another_version_than_its_label_is_none(wording: Wording) -> None:
    with Worker(Launch("numpy@1.0")) as worker:
        started = worker.start()
    assert started.status == "error"
    wording(started.cause, f"numpy@1.0 ... numpy {np.__version__} ... {sys.executable}")


def test_a_worker_of_the_version_of_its_label_starts() -> None:
    with Worker(Launch(f"numpy@{np.__version__}")) as worker:
        assert worker.start().ok
        assert worker.hello is not None
        assert worker.hello["backend"] == backend_of("numpy@here") == "numpy"
