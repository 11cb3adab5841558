"""The rate at which a trajectory leads somewhere."""

from __future__ import annotations

import numpy as np
import pytest

from harness.checking.checks.training import RATE, find_stable_rate, select_last
from harness.oracle.yardstick import Expected


def test_the_rate_is_one_at_which_what_is_compared_is_stable() -> None:
    """However still all the steps before are, most of the noise's median."""
    tried = []

    def steps(rate: float) -> Expected:
        tried.append(rate)
        early = dict.fromkeys((f"step {n}: loss" for n in range(20)), 1e-8)
        end = {"step 20: loss": np.zeros(3)}
        return Expected(end, lambda _: {**early, "step 20: loss": rate**2})

    rate, _ = find_stable_rate(RATE, "float32", steps)
    assert rate == tried[-1] < RATE / 16
    assert rate == pytest.approx(RATE / 16 ** (len(tried) - 1))


def test_a_rate_that_is_stable_is_taken_as_it_is() -> None:
    rate, _ = find_stable_rate(
        RATE, "float32", lambda _: Expected({"loss": np.zeros(3)}, lambda _: {"loss": 0})
    )
    assert rate == pytest.approx(RATE)


def test_a_layer_whose_name_starts_with_loss_is_no_loss() -> None:
    names = ["step 3: loss", "step 3: loss_head.W moved", "step 4: loss", "step 4: out.W moved"]
    expected = Expected(dict.fromkeys(names, np.zeros(1)), lambda _: {})
    assert list(select_last(expected, 3, 4).values) == [names[0], names[2], names[3]]
