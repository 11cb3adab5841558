"""A cell that differs as one folder: the pass of the first check that differs, as program,
weights, batch and expected values. Replayed by ``harness replay FOLDER``."""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from harness import kinds
from harness.atomic import write_whole
from harness.case import Case, Expected
from harness.cells import Cell
from harness.checks.context import part
from harness.checks.extremes import (
    INDICES,
    corner_material,
    extreme_material,
    index_material,
    kink_material,
    saturated_material,
)
from harness.checks.properties import smaller_batch
from harness.errors import UsageError
from harness.files import MAX_ARRAYS, MAX_PROGRAM, FileFault, read_bytes
from harness.findings import Finding
from harness.kinds import ARCHIVED, GROUPS
from harness.material import Arrays, Material
from harness.program import Phase, Program
from harness.remote import Remote
from harness.wire import decode, encode

# What reading the files of something else, or of a copy that was cut off, can raise.
MALFORMED = (FileFault, OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error)
ARRAYS, PROGRAM = "arrays.npz", "program.json"


def _main(case: Case) -> Material:
    return case.material


# Checks that are one pass -> what it is run on. All but two are results and gradients of the loss.
INFERENCE, ALONG = "inference", "cotangent-gradients"
MATERIALS: Mapping[str, Callable[[Case], Material]] = {
    **dict.fromkeys(("outputs", "loss", "state", "statistics", "gradients"), _main),
    ALONG: _main,
    INFERENCE: _main,
    "partial-batch": smaller_batch,
    "extremes": extreme_material,
    "saturation": saturated_material,
    "kinks": kink_material,
    "corners": corner_material,
    **{check: partial(index_material, value=value) for check, value in INDICES.items()},
}


@dataclass(frozen=True)
class Pass:
    """One pass of a check; with ``cotangents``, gradients along them instead of the loss's."""

    check: str
    phase: Phase
    material: Material
    cotangents: Arrays | None = None

    def run(self, remote: Remote) -> dict[str, npt.NDArray[Any]]:
        """What an open session gives; raises :class:`harness.remote.WorkerFault`."""
        remote.load(self.material)
        if self.phase == "inference":
            return dict(remote.forward("inference", self.material.inputs, self.material.state))
        found = dict(remote.gradients(self.material, self.cotangents))
        return found if self.cotangents is None else part(found, "gradient.")

    def expected(self, case: Case) -> Expected:
        """What the oracle gives."""
        key = f"reproducer of {self.check}"
        if self.phase == "inference":
            return case.forward("inference", self.material, key)
        expected = case.gradients(self.material, key, self.cotangents)
        return expected if self.cotangents is None else expected.only("gradient.")


@dataclass(frozen=True)
class Reproducer:
    """What :func:`load` finds in a folder."""

    cell: Cell
    training: Program
    inference: Program
    run: Pass
    expected: Expected


def first_check(findings: Iterable[Finding]) -> str | None:
    """The first check that differs and is one pass, so that it can be saved."""
    differing = (f.check for f in findings if f.verdict == "differ")
    return next((check for check in differing if check in MATERIALS), None)


def pass_of(case: Case, check: str) -> Pass:
    """The pass of a check that :data:`MATERIALS` names."""
    return Pass(
        check,
        "inference" if check == INFERENCE else "training",
        MATERIALS[check](case),
        case.cotangents if check == ALONG else None,
    )


def check_writable(folder: Path) -> None:
    """Make the folder for reproducers; :class:`UsageError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write reproducers to {folder}: {error}") from None


def save(folder: Path, cell: Cell, case: Case, check: str) -> Path:
    """Write the reproducer of a check in :data:`MATERIALS`; returns its folder.

    Files appear whole or not at all. Raises :class:`UsageError` where it cannot be written.
    """
    name = f"{cell.spec}-{cell.backend}-{cell.dtype}-{cell.path}".replace("/", "-")
    target = folder / name
    run = pass_of(case, check)
    expected = run.expected(case)
    groups = {group: getattr(run.material, group) for group in GROUPS}
    groups |= {"cotangents": run.cotangents or {}, "expected": expected.values}
    arrays = {f"{group}/{n}": a for group, found in groups.items() for n, a in found.items()}
    meta = {
        "cell": cell.record(),
        "check": check,
        "phase": run.phase,
        "noise": dict(expected.noise),
        "training": encode(case.training),
        "inference": encode(case.inference),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        target.mkdir(parents=True, exist_ok=True)
        places = (target / ARRAYS, kinds.ARRAYS), (target / PROGRAM, kinds.PROGRAM)
        for place, kind in places:  # both, before either is replaced
            kinds.check_kind(place, kind)
        write_whole(target / ARRAYS, buffer.getvalue())
        write_whole(target / PROGRAM, json.dumps(meta).encode())
    except (OSError, FileFault) as error:
        raise UsageError(f"cannot write a reproducer to {target}: {error}") from None
    return target


def load(folder: Path) -> Reproducer:
    """Read a reproducer; :class:`UsageError` if the folder does not hold one."""
    try:
        meta = json.loads(read_bytes(folder / PROGRAM, MAX_PROGRAM, "a program"))
        # From memory: numpy leaves the file of a broken archive open.
        held = io.BytesIO(read_bytes(folder / ARRAYS, MAX_ARRAYS, "arrays"))
        with np.load(held) as archive:
            arrays: Mapping[str, npt.NDArray[Any]] = {n: archive[n] for n in archive.files}
        return _reproducer(meta, arrays)
    except MALFORMED as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"{folder} holds no reproducer: {what}") from None


def _reproducer(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Reproducer:
    groups = {
        group: {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{group}/")}
        for group in ARCHIVED
    }
    return Reproducer(
        Cell(**meta["cell"]),
        decode(meta["training"]),
        decode(meta["inference"]),
        Pass(
            meta["check"],
            meta["phase"],
            Material(**{group: groups[group] for group in GROUPS}),
            groups["cotangents"] or None,
        ),
        Expected(groups["expected"], dict(meta["noise"])),
    )
