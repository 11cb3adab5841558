"""What numbers speak against a backend that is said to have waited for its work."""

from __future__ import annotations

from typing import Any

import pytest
from wording import Wording

from harness.timing.proofs.times import Scaling, _explain_missing_wait

# Of a step of a millisecond: short runs of 30 steps, long ones of 300.
HONEST: dict[str, Any] = {
    "steps": 30,
    "factor": 10,
    "ratio": 10.0,
    "ratios": [10.0, 9.5, 10.4],
    "processor_ratios": [10.0, 9.8, 10.2],
    "seconds": 0.3,
    "short": 1e-3,
    "waited": 1.1e-3,
    "step_after_short": 1.3e-3,
    "step_after": 1.3e-3,
    "step_alone": 1.3e-3,
}
# A machine with other work holds up the long runs, while threads that wait spend its time.
BUSY = {"ratio": 29.0, "ratios": [25.0, 29.0, 31.0], "processor_ratios": [24.0, 27.0, 33.0]}
REASON = "10 times the steps take 29 times as long"


@pytest.mark.parametrize(
    "noise", [{}, BUSY, BUSY | {"processor_ratios": [24.0, 27.0, 9.0], "short": 1e-5}]
)
def test_noise_speaks_against_nobody(noise: dict[str, Any]) -> None:
    assert _explain_missing_wait(Scaling(**HONEST | noise)) == ""


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (
            {"ratio": 29.0, "ratios": [29.0] * 3, "processor_ratios": []} | {"short": 1e-5},
            f"{REASON}",
        ),
        (BUSY | {"short": 1e-5}, f"{REASON}"),
        (BUSY | {"step_after_short": 0.03}, f"{REASON}"),
        ({"ratio": 3.0, "ratios": [3.0] * 3}, "10 ... 3"),
        ({"step_after": 0.2}, "300 ... 0.3"),
    ],
)
def test_work_that_is_left_does(left: dict[str, Any], reason: str, wording: Wording) -> None:
    wording.line(_explain_missing_wait(Scaling(**HONEST | left)), reason)
