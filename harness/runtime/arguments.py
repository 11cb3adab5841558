"""The arguments of a program: arrays by the names of its ports."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.arrays import ArrayDict


@dataclass(frozen=True)
class Arguments:
    """ArrayDict by port name; float64 values that float32 holds exactly, or int64 indices."""

    parameters: ArrayDict
    statistics: ArrayDict
    inputs: ArrayDict
    state: ArrayDict
    targets: ArrayDict

    def with_batch(self, other: Arguments) -> Arguments:
        """These parameters and statistics with those of another batch."""
        return replace(self, inputs=other.inputs, state=other.state, targets=other.targets)
