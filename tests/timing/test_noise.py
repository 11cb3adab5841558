"""How many times as fast, and how surely: against what is known of the samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from wording import Wording

from harness.timing.noise import beyond_noise, compare_rounds


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        ([1.0, 1.1, 1.2], [4.0, 4.1, 4.2], True),
        ([4.0, 4.1, 4.2], [1.0, 1.1, 1.2], True),
        ([1.0, 2.0, 5.0], [4.0, 5.0, 6.0], False),
        ([1.0, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [2.0, 2.0], True),
        ([1.0], [5.0], False),
    ],
)
def test_beyond_noise(first: Sequence[float], second: Sequence[float], known: bool) -> None:
    assert beyond_noise(first, second) is known


def test_one_is_as_much_faster_as_the_other_is_slower() -> None:
    first, second = [1.0, 1.1, 0.9, 1.05], [2.0, 2.3, 1.9, 2.2]
    for paired in (False, True):
        there, back = (
            compare_rounds(a, b, paired=paired) for a, b in ((first, second), (second, first))
        )
        assert there.value == pytest.approx(1 / back.value)
        assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))
        assert there.low < there.value < there.high


@pytest.mark.parametrize(("rounds", "paired"), [(3, False), (5, False), (5, True), (20, False)])
def test_the_interval_covers_the_truth_as_often_as_it_says(rounds: int, paired: bool) -> None:
    """Of 1,000 made runs with a true speed of 3, 95% of the intervals have it, within chance."""
    random, inside = np.random.default_rng(rounds), 0
    for _ in range(1000):
        slowness = random.normal(0, 0.2, rounds) if paired else 0.0
        fast = np.exp(random.normal(0, 0.05, rounds) + slowness)
        slow = 3 * np.exp(random.normal(0, 0.1, rounds) + slowness)
        found = compare_rounds(list(fast), list(slow), paired=paired)
        inside += found.low <= 3 <= found.high
    assert 930 <= inside <= 975


def test_what_slows_both_partners_of_a_pair_is_taken_out() -> None:
    fast = [1.0, 2.0, 1.5, 3.0, 1.2]
    slow = [1.31, 2.58, 1.96, 3.88, 1.57]
    assert not compare_rounds(fast, slow).known
    assert compare_rounds(fast, slow, paired=True).known


def test_what_is_told_has_the_digits_that_are_known(wording: Wording) -> None:
    told = str(compare_rounds([1.0, 1.02, 0.98, 1.01], [2.9, 3.0, 2.8, 2.95]))
    assert told == "2.90 times (2.80 to 3.01)" or told == "2.9 times (2.8 to 3.0)"
    assert (
        str(compare_rounds([100.0, 102.0, 98.0], [1.0, 1.01, 0.99]))
        == "0.0100 times (0.0096 to 0.0104)"
    )
    wording(compare_rounds([1.0], [3.0]), "3.0")


def test_extreme_rounds_raise_and_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first, second in (
            ([1e-12, 1e9], [1e9, 1e-12]),
            ([1.0, 1.0 + 1e-15, 1.0], [1.0, 1.0, 1.0]),
            ([1.0] * 5, [1.0 + 1e-9] * 5),
        ):
            found = compare_rounds(first, second)
            assert math.isfinite(found.value)
            assert found.low <= found.value <= found.high
