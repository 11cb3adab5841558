"""The contents of a framework's file, held against what a model has; then its arrays.

A file is compared by what it declares, before memory is taken for any array of it: the model says
how many numbers there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten
from harness.files.user_file import displayed

SHOWN = 5
FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Declared:
    """An array that is still in its file: what it is said to be, and how it is read."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]


def bytes_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The bytes of arrays of these shapes, in float64."""
    return 8 * sum(math.prod(shape) for shape in shapes.values())


def check_names(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """The same keys; :class:`UsageError` names the file, what it has, and what was wanted."""
    found, wanted = list(found), list(wanted)
    there, known = set(found), set(wanted)
    missing, unknown = [k for k in wanted if k not in there], [k for k in found if k not in known]
    if missing or unknown:
        parts = [f"it lacks {_some(missing)}"] if missing else []
        if unknown:
            parts.append(f"the model has no {_some(unknown)}{did_you_mean(unknown[0], missing)}")
        raise UsageError(f"{displayed(path)} does not fit the model: {'; '.join(parts)}")


def read_arrays(
    path: Path, found: Mapping[str, Declared], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """The wanted arrays, C-contiguous, once all are declared as the model has them.

    Raises :class:`UsageError` for other keys and shapes, for dtypes other than one of float32 and
    float64, and for what is not as it was declared.
    """
    check_names(path, found, wanted)
    check_declared(path, found, wanted)
    arrays = {}
    for key, shape in wanted.items():
        array = np.array(found[key].load(), order="C")
        if (array.shape, str(array.dtype)) != (shape, found[key].dtype):
            raise UsageError(f"{displayed(path)}: {key} is not what the file says that it is")
        arrays[key] = array
    return arrays


def check_declared(
    path: Path, found: Mapping[str, Declared], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Shapes, and one dtype of float32 and float64; :class:`UsageError` for others."""
    name = displayed(path)
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise UsageError(
                f"{name}: {key}: expected shape {list(shape)}, found "
                f"{shorten(str(list(found[key].shape)))} "
                "(other sizes than the spec's are given by --size)"
            )
        dtype = found[key].dtype
        if dtype not in FLOATS:
            raise UsageError(f"{name}: {key} is {dtype}; allowed are float32 and float64")
    dtypes = sorted({found[key].dtype for key in wanted})
    if len(dtypes) > 1:
        raise UsageError(f"{name} holds {' and '.join(dtypes)}; all must be of one dtype")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(shorten, names[:SHOWN])) + more
