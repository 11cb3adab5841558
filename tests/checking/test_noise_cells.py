"""Noise, lengths and masks through what a check does: passes, plans, reproducers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from needed import need
from noisy_model import NOISY, noisy
from sampling import sampled

import harness
from harness.checking import reproducer
from harness.oracle.case import Case
from harness.oracle.complex_step import complex_step_gap
from harness.oracle.tolerance import worst
from harness.results.cell import Cell
from harness.runtime.session import Session

CELL = Cell("noisy", "numpy", "cpu", "float64", "native")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(noisy(), {}, 4, 3)


def test_the_derivative_of_noise_is_proved(case: Case) -> None:
    assert complex_step_gap(case) < 1e-12


def test_other_batches_have_other_noise(case: Case) -> None:
    one, two = case.material.inputs, case.batch_of(4, 3).inputs
    for name in ("jitter", "drop.kept", "drop.2.kept", "rnn.cell_stays", "sample.unit"):
        assert not np.array_equal(one[name], two[name]), name


@pytest.mark.parametrize("check", ["gradients", "inference", "cotangent-gradients"])
def test_a_reproducer_holds_the_noise(case: Case, tmp_path: Path, check: str) -> None:
    found = reproducer.load(reproducer.save(tmp_path, CELL, case, check))
    for name, array in case.material.inputs.items():
        np.testing.assert_array_equal(found.run.material.inputs[name], array)
    assert found.run.material.inputs["kept"].dtype == np.bool_
    backend = pytest.importorskip("harness.backends.numpy.backend").Numpy()
    backend.use("cpu", "float64")
    session = Session(backend, found.training, found.inference, dtype="float64", path="derived")
    results = found.run.run_in_session(session)
    assert worst(found.expected.deviations(results, "float64")).agrees


@pytest.mark.parametrize("backend", sampled(("numpy", "torch", "jax"), ("numpy",)))
def test_the_checks_agree(backend: str, tmp_path: Path) -> None:
    need(backend)
    file = tmp_path / "noisy.yaml"
    file.write_text(NOISY)
    found = harness.check(file, [backend], dtypes=["float64"], timeout=600)
    assert found.agrees, str(found)
