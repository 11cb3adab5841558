"""What a hand-written baseline is made of: each module here has a ``make`` of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Given:
    """A system in ``mode`` "train" or "forward": where it begins, its batches and its optimizer
    with the attributes; arrays by the spec's names, floats in the dtype that is timed."""

    system: str
    mode: str
    parameters: Arrays
    statistics: Arrays
    state: Arrays
    learning_rate: float
    optimizer: Mapping[str, Any]
    sizes: Mapping[str, int]
    batches: Sequence[Mapping[str, Arrays]]
