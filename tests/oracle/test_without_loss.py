"""A model without a loss: checked on the squares of its outputs, timed forward only."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import ONE_LAYER
from wording import Wording

from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.timing.request import BenchRequest, groups_of


@pytest.fixture
def plain(tmp_path):
    text = ONE_LAYER.format(name="plain").partition("targets:")[0] + "  best = logits < 0\n"
    path = tmp_path / "plain.yaml"
    path.write_text(text)
    return path


def test_its_gradients_are_those_of_the_squares_of_its_outputs(plain) -> None:
    case = Case(load_spec(str(plain)), {}, 3, 1)
    found = case.gradients(case.material, "main").values
    logits = found["output.logits"]
    expected = np.mean(logits**2) + np.mean(found["output.best"] ** 2)
    np.testing.assert_allclose(found["loss"], expected)
    x = case.material.inputs["x"]
    np.testing.assert_allclose(found["gradient.out.W"], x.T @ logits * 2 / logits.size)
    assert complex_step_gap(case) <= ALLOWED


def test_it_is_timed_forward_and_never_in_training(plain, wording: Wording) -> None:
    request = BenchRequest(specs=(str(plain),), backends=("numpy",))
    assert {group.mode for group in groups_of(request)} == {"forward"}
    with wording.raises(UsageError, "--mode forward"):
        groups_of(BenchRequest(specs=(str(plain),), backends=("numpy",), modes=("train",)))
