"""Timed steps of a model with noise, lengths and masks: every batch brings its own."""

from __future__ import annotations

import numpy as np
import pytest
from noisy_model import noisy
from sampling import sampled

from harness.oracle.tolerance import worst
from harness.runtime.step_service import StepService
from harness.timing.request import Group
from harness.timing.workload import TimedCase

WAYS = [(mode, path) for mode in ("train", "forward") for path in ("derived", "native")]


@pytest.mark.parametrize(
    ("mode", "path"), sampled(WAYS, (("train", "derived"), ("forward", "native")))
)
def test_timed_steps_are_those_of_the_oracle(mode: str, path: str) -> None:
    backend = pytest.importorskip("harness.backends.numpy.backend").Numpy()
    case = TimedCase(Group(noisy(), mode, 4, 3, {}), "float32", 0)
    service = StepService(backend)
    service.prepare(**case.payload(path, "cpu"))
    results = [service.values(index, 1)[0] for index in case.compared]
    after = service.parameters() if mode == "train" else {}
    after.pop("others", None)
    found = worst(case.compare(case.rename_results(results, after)))
    assert found.agrees, str(found)


def test_the_peak_memory_starts_anew() -> None:
    service = StepService(pytest.importorskip("harness.backends.numpy.backend").Numpy())
    assert len(bytearray(1 << 28)) == 1 << 28  # freed at once
    before = service.memory()["resident"]
    service.forget_peaks()
    after = service.memory()["resident"]
    assert before is not None
    assert after is not None
    assert after < before - (1 << 27)


def test_every_batch_has_noise_of_its_own_and_the_three_kinds_of_rows() -> None:
    case = TimedCase(Group(noisy(), "train", 4, 3, {}), "float32", 0)
    drawn = [batch["inputs"]["drop.kept"].tobytes() for batch in case.batches]
    assert len(set(drawn)) == len(drawn)
    for batch in case.batches:
        assert batch["inputs"]["lengths"][:3].tolist() == [3, 0, 1]
        assert batch["inputs"]["kept"].dtype == np.bool_
