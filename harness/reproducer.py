"""A cell that differs as one folder: program, weights, batch, expected values. Replayed by
``harness replay FOLDER``."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from harness.case import Case, Expected
from harness.cells import Cell
from harness.errors import UsageError
from harness.material import Material
from harness.program import Program
from harness.wire import decode, encode

# What reading the files of something else, or of a copy that was cut off, can raise.
MALFORMED = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error)
GROUPS = ("parameters", "statistics", "inputs", "state", "targets")


@dataclass(frozen=True)
class Reproducer:
    """What :func:`load` finds in a folder."""

    cell: Cell
    training: Program
    inference: Program
    material: Material
    expected: Expected


def save(folder: Path, cell: Cell, case: Case) -> Path:
    """Write a reproducer; returns its folder. Files appear whole or not at all.

    Raises :class:`UsageError` where it cannot be written.
    """
    name = f"{cell.spec}-{cell.backend}-{cell.dtype}-{cell.path}".replace("/", "-")
    target = folder / name
    expected = case.gradients(case.material, "main")
    arrays = {
        f"{group}/{n}": a for group in GROUPS for n, a in getattr(case.material, group).items()
    }
    arrays.update({f"expected/{n}": a for n, a in expected.values.items()})
    meta = {
        "cell": cell.record(),
        "noise": dict(expected.noise),
        "training": encode(case.training),
        "inference": encode(case.inference),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_whole(target / "arrays.npz", buffer.getvalue())
        write_whole(target / "program.json", json.dumps(meta).encode())
    except OSError as error:
        raise UsageError(f"cannot write a reproducer to {target}: {error}") from None
    return target


def load(folder: Path) -> Reproducer:
    """Read a reproducer; :class:`UsageError` if the folder does not hold one."""
    try:
        meta = json.loads((folder / "program.json").read_text(encoding="utf-8"))
        # From memory: numpy leaves the file of a broken archive open.
        with np.load(io.BytesIO((folder / "arrays.npz").read_bytes())) as archive:
            arrays: Mapping[str, npt.NDArray[Any]] = {n: archive[n] for n in archive.files}
        return _reproducer(meta, arrays)
    except MALFORMED as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"{folder} holds no reproducer: {what}") from None


def _reproducer(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Reproducer:
    groups = {
        group: {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{group}/")}
        for group in (*GROUPS, "expected")
    }
    return Reproducer(
        Cell(**meta["cell"]),
        decode(meta["training"]),
        decode(meta["inference"]),
        Material(**{group: groups[group] for group in GROUPS}),
        Expected(groups["expected"], dict(meta["noise"])),
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
