"""Parameters in a plain safetensors file, as any program writes one: arrays by neutral names.

It says nothing of the model or of its sizes, and has no checksum; what it holds is compared with
the spec by name and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import deserialize
from safetensors.numpy import load as from_safetensors

from harness.arrays import ArrayDict
from harness.convert.weights import WeightsError
from harness.convert.weights_header import MALFORMED, reason_of
from harness.errors import shorten
from harness.files.kinds import OPENING
from harness.files.user_file import (
    MAX_HEADER,
    MAX_WEIGHTS,
    FileFault,
    displayed,
    read_bytes,
    read_head,
)

FLOATS = ("float32", "float64")
# How the header of a file starts that says nothing of itself: with an array's name, or without any.
STARTS = (b'{"', b"{}")


def is_plain(path: str | Path) -> bool:
    """Whether a file looks like safetensors, and like none that the harness wrote."""
    try:
        head = read_head(path, 8 + len(OPENING))
    except FileFault:
        return False  # whoever reads it says why
    return head[8:10] in STARTS and head[8:] != OPENING


def load(path: str | Path) -> ArrayDict:
    """The arrays by name; float32 or float64.

    Raises:
        WeightsError: the file cannot be read, is damaged, or holds something else.
    """
    name = displayed(path)
    try:
        data = read_bytes(path, MAX_WEIGHTS, "weights")
    except FileFault as error:
        raise WeightsError(f"cannot read the weights {name!r}: {error.reason}") from None
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER:
        raise WeightsError(
            f"{name!r}: a header of {header:,} bytes; at most {MAX_HEADER:,} are read"
        )
    try:
        found = dict(from_safetensors(data))
    except KeyError:  # a dtype that numpy has not
        raise _no_float(name, *_foreign(data)) from None
    except MALFORMED as error:
        raise WeightsError(f"{name!r} holds no weights: {shorten(reason_of(error))}") from None
    for tensor, array in found.items():
        if str(array.dtype) not in FLOATS:
            raise _no_float(name, tensor, str(array.dtype))
    return found


def _foreign(data: bytes) -> tuple[str, str]:
    """The first tensor that holds no such floats, by name, and its dtype as the file has it."""
    read: Callable[[bytes], Iterable[tuple[str, dict[str, Any]]]] = deserialize
    dtypes = {tensor: str(found["dtype"]) for tensor, found in read(data)}
    return next((tensor, d) for tensor, d in dtypes.items() if d not in ("F32", "F64"))


def _no_float(name: str, tensor: str, dtype: str) -> WeightsError:
    return WeightsError(
        f"{name!r}: {shorten(tensor)} is {dtype}; allowed are {' and '.join(FLOATS)}"
    )
