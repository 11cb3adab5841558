"""How far the clock of a worker may be from our own, by what was measured in the same rounds."""

from __future__ import annotations

import pytest

from harness.timing.contestant import TimedRow
from harness.timing.proofs.times import compare_clocks


def row(rate: float, message: float = 0.4, seconds: float = 0.25, wait: float = 0.01) -> TimedRow:
    """A round by a clock that goes at a rate, and by our own, on a machine where messages and waits
    take so many ms."""
    return TimedRow(seconds * rate, seconds + message / 1e3, wait / 1e3)


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([row(1.0)] * 5, False),
        ([row(0.85)] * 5, True),
        ([row(0.95)] * 5, True),
        ([row(0.99)] * 5, True),
        # Three of five decide the median, two do not.
        ([row(1.0)] * 2 + [row(0.95)] * 3, True),
        ([row(1.0)] * 3 + [row(0.5)] * 2, False),
        ([row(1.0)] * 2 + [row(0.95)] * 2, True),
        ([row(1.0)] * 3 + [row(1.0, 200)] * 2, False),
        # Seen at a load of 25 on two cores: numpy, and numpy in short rounds.
        ([row(1.0, ms, 2.2, 19) for ms in (13.5, 24.8, 3.9, 9.8, 21.8)], False),
        ([row(1.0, ms, 0.3, 20) for ms in (25.6, 19.8)], False),
        ([row(1.0, ms, 0.22, 17) for ms in (40, 40)], False),
        ([row(0.95, ms, 2.2, 19) for ms in (13.5, 24.8, 3.9, 9.8, 21.8)], True),
    ],
    ids=[
        *("true", "15% slow", "5% slow", "1% slow", "in most rounds", "in two of five"),
        *("in two of four", "held up twice", "busy", "busy and short", "busier", "busy, 5% slow"),
    ],
)
def test_a_clock_is_refused_where_messages_do_not_explain_it(
    rows: list[TimedRow], refused: bool
) -> None:
    told, passed, allowed = compare_clocks(rows)
    assert (passed - told > allowed) is refused
