"""The histogram of an error: decades of what is allowed."""

import numpy as np
import pytest

from harness.oracle.tolerance import DECADES, spread

TOLERANCE, SCALE = 1e-6, 4.0


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (0.0, 0),
        (1e-300, 1),
        (2e-6, 1),
        (0.5, DECADES + 1),
        (2.0, DECADES + 2),
        (30.0, DECADES + 3),
        (1e300, -1),
        (np.inf, -1),
        (np.nan, -1),
    ],
)
def test_every_entry_is_counted_in_its_decade(error: float, place: int) -> None:
    expected = np.zeros((2, 3))
    found = expected.copy()
    found[1, 2] = error * TOLERANCE * SCALE
    counts = spread(found, expected, SCALE, TOLERANCE)
    assert len(counts) == 2 * DECADES + 3
    assert sum(counts) == found.size
    assert counts[0] == found.size - (error != 0)
    if error:
        assert counts[place] == 1


def test_what_is_no_number_in_both_is_exact() -> None:
    both = np.array([np.nan, np.inf, -np.inf])
    assert spread(both, both, SCALE, TOLERANCE)[0] == 3
    assert spread(-both, both, SCALE, TOLERANCE)[-1] == 2
