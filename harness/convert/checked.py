"""What was read from a framework's file, held against what a model has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError, did_you_mean

SHOWN = 5


def check_arrays(
    path: Path, found: Mapping[str, npt.NDArray[Any]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """The same keys and shapes, and one dtype of float32 and float64.

    Raises :class:`UsageError`, which names the file, what it has, and what was wanted.
    """
    missing, unknown = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    if missing or unknown:
        parts = [f"it lacks {_some(missing)}"] if missing else []
        if unknown:
            parts.append(f"the model has no {_some(unknown)}{did_you_mean(unknown[0], missing)}")
        raise UsageError(f"{path} does not fit the model: {'; '.join(parts)}")
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise UsageError(
                f"{path}: {key}: expected shape {list(shape)}, found {list(found[key].shape)} "
                "(other sizes than the spec's are given by --size)"
            )
        if found[key].dtype not in (np.float32, np.float64):
            raise UsageError(
                f"{path}: {key} is {found[key].dtype}; allowed are float32 and float64"
            )
    dtypes = sorted({str(found[key].dtype) for key in wanted})
    if len(dtypes) > 1:
        raise UsageError(f"{path} holds {' and '.join(dtypes)}; all must be of one dtype")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
