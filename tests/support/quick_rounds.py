"""Short rounds of ``harness bench``, for tests."""

from __future__ import annotations

import pytest

from harness.timing import rounds, timed_round


def quick_rounds(patch: pytest.MonkeyPatch, round_: float = 0.03, waited: float = 0.01) -> None:
    """Set the seconds of a round and of its single steps; make all other phases very short."""
    for module, name, seconds in (
        *((rounds, "TRIAL", 0.02), (rounds, "WARMING", 0.01), (timed_round, "WARMING", 0.01)),
        *((timed_round, "ROUND", round_), (timed_round, "WAITED", waited)),
    ):
        patch.setattr(module, name, seconds)
