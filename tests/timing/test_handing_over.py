"""What counts as work that is done while batches are handed over."""

from __future__ import annotations

from harness.timing.contestant import FeedTime
from harness.timing.proofs.times import _feeding_seconds


def test_threads_that_spin_have_not_worked() -> None:
    """They take processors' time while one thread copies, at most as many times as long."""
    spinning = [FeedTime(wall=0.005, processor=0.02)] * 2 + [
        FeedTime(wall=0.06, processor=0.03)
    ] * 4
    assert _feeding_seconds(spinning, on_cpu=True) == 0.005


def test_work_shows_in_both_times() -> None:
    working = [FeedTime(wall=0.03, processor=0.06)] * 4 + [FeedTime(wall=0.001, processor=0.001)]
    assert _feeding_seconds(working, on_cpu=True) == 0.03
    assert _feeding_seconds(working, on_cpu=False) == 0.001
