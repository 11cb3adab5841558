"""A yardstick for numbers that nobody has drawn off the kinks.

At a large batch, or on numbers of a user's own, some of millions of relus are always so near to
their kink that float32 cannot tell; what such a one does to a gradient is no fault of a backend.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.arrays import Array
from harness.oracle.oracle import Oracle

# Operands nearer than this, relative to the largest, may compare the other way in float32.
DOUBTFUL = 1e-6
# What comparisons that fall the other way do to a result is allowed twice, where the noise of
# float32 is allowed 16 times (harness.oracle.tolerance.K).
KINKS = 8.0


class Wavering(Oracle):
    """The oracle, but that comparisons fall the other way where float32 could not tell."""

    def __init__(self) -> None:
        super().__init__()
        doubtful = {"less": _doubtful(np.less), "less_equal": _doubtful(np.less_equal)}
        self._table = {**self._table, **doubtful}


def _doubtful(compare: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def run(a: Array, b: Array) -> Array:
        gap = np.abs(np.subtract(a, b))
        size = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
        return np.asarray(compare(a, b) ^ ((gap > 0) & (gap <= DOUBTFUL * size)))

    return run
