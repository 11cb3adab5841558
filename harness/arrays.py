"""Types of numpy arrays, by the names that all rooms use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
# By name, to be read only; and such as may be changed.
Arrays = Mapping[str, Array]
ArrayDict = dict[str, Array]


def widened(array: npt.ArrayLike) -> Array:
    """Floats as float64; conditions and indices as they are."""
    found = np.asarray(array)
    return found.astype(np.float64) if found.dtype.kind == "f" else found
