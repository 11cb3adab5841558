"""When steps that nobody reads take too little, by the clock and by the time of processors."""

from __future__ import annotations

import pytest

from harness.timing.contestant import Pace
from harness.timing.proofs.times import LEAST_PROCESSOR, is_too_short


def pace(row: float, row_processor: float) -> Pace:
    """Of a step that takes 1 s alone, and 2 s of processors."""
    return Pace(row, 1.0, 0.0, 0.0, 1.0, row_processor, 2.0)


@pytest.mark.parametrize(
    ("paces", "refused"),
    [
        ([pace(1.0, 2.0)] * 3, False),
        ([pace(0.5, 2.0)] * 3, True),
        # One that is as long is enough, as a busy machine makes any of them short or long.
        ([pace(0.5, 2.0), pace(0.5, 2.0), pace(0.9, 2.0)], False),
        # Half of the work, on a machine so busy that one in three takes its time.
        ([pace(0.5, 1.0), pace(0.6, 1.0), pace(1.2, 1.0)], True),
        # Threads that waited at full speed, where steps were alone; seen at a load of 7 on 2 cores.
        ([pace(2.0, 1.1), pace(2.1, 1.2), pace(0.6, 1.1)], False),
    ],
    ids=["as long", "short", "once as long", "half of the work", "waiting threads"],
)
def test_which_are_too_short(paces: list[Pace], refused: bool) -> None:
    assert is_too_short(paces, True, LEAST_PROCESSOR) is refused


def test_of_a_card_the_clock_alone_tells() -> None:
    assert not is_too_short([pace(0.8, 0.1)] * 3, False, LEAST_PROCESSOR)
