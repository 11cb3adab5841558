"""Type annotations of numpy arrays, and the dtypes that processes may send to each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
# Mappings from names to arrays: a read-only and a mutable type.
Arrays = Mapping[str, Array]
ArrayDict = dict[str, Array]


def widen(array: npt.ArrayLike) -> Array:
    """Return a float array as float64, and an array of any other dtype unchanged."""
    values = np.asarray(array)
    return values.astype(np.float64) if values.dtype.kind == "f" else values


# The dtypes of arrays that processes may send, by name: numbers, times and text. A received name is
# looked up here. numpy never parses it, because numpy's parser also accepts structures and objects.
_NUMBERS = ("b1", "i1", "u1", *(f"{k}{n}" for k in "iu" for n in (2, 4, 8)), "f2", "f4", "f8")
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
_TIMES = [f"{kind}8[{unit}]" for kind in "mM" for unit in _UNITS]
# By name, in both byte orders.
_DTYPES = {
    dtype.str: dtype
    for name in (*_NUMBERS, "c8", "c16", *_TIMES)
    for dtype in (np.dtype(f"{order}{name}") for order in "<>")
}
_TEXT = re.compile(r"[<>|][US]([1-9][0-9]{0,4})")
# Maximum characters or bytes of one entry.
_LONGEST_TEXT = 1 << 16


def find_dtype(name: str) -> np.dtype[Any] | None:
    """Return the dtype with a name such as ``<f4``; None if processes may not send arrays of it."""
    text = _TEXT.fullmatch(name)
    if text and int(text[1]) <= _LONGEST_TEXT:
        return np.dtype(name)
    return _DTYPES.get(name)


def can_send(dtype: np.dtype[Any]) -> bool:
    """Return whether a process can send arrays of a dtype to another process."""
    # A dtype that another package registers (e.g. bfloat16) has the name of raw bytes, e.g. "<V2".
    sendable = find_dtype(dtype.str)
    return sendable is not None and sendable == dtype
