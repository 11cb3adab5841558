"""The arguments of a program: arrays by the names of its ports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Arguments:
    """Arrays by port name; float64 values that float32 holds exactly, or int64 indices."""

    parameters: Arrays
    statistics: Arrays
    inputs: Arrays
    state: Arrays
    targets: Arrays

    def with_batch(self, other: Arguments) -> Arguments:
        """These parameters and statistics with those of another batch."""
        return replace(self, inputs=other.inputs, state=other.state, targets=other.targets)
