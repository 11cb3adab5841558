"""Reproducers: folders for single passes whose results differ from the oracle's. A reproducer is
made for the first such pass of a cell. It has the program, the parameters, the batch and the
expected values. ``harness replay FOLDER`` runs the pass again."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from harness.arrays import ArrayDict, Arrays
from harness.checking.checks.context import select_prefixes
from harness.checking.checks.extremes import (
    INDICES,
    corner_material,
    extreme_material,
    index_material,
    kink_material,
    saturated_material,
)
from harness.checking.checks.properties import smaller_batch
from harness.errors import HarnessError, UsageError, shorten
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.forms import Form, Number, formed, read_json
from harness.files.kinds import ARCHIVED, GROUPS
from harness.files.npz import read_npz
from harness.files.system import file_name
from harness.files.user_file import MAX_ARRAYS, MAX_PROGRAM, FileFault, displayed, read_bytes, why
from harness.language.program_checks import check_program
from harness.oracle.case import Case
from harness.oracle.time_limit import OracleFault
from harness.oracle.yardstick import Expected, Reference
from harness.program.dims import bind
from harness.program.ir import Phase, Program
from harness.program.serial import decode, encode
from harness.results.cell import Cell
from harness.results.findings import Finding
from harness.runtime import paths
from harness.runtime.answers import Arguments
from harness.runtime.memory import check_fits
from harness.runtime.session import Session
from harness.worker.remote import Remote, Tensors

ARRAYS, PROGRAM = "arrays.npz", "program.json"


# Checks that consist of a single pass -> the function that makes the arguments of the pass. All
# checks except INFERENCE and COTANGENT_GRADIENTS compare results and gradients of the loss.
INFERENCE, COTANGENT_GRADIENTS = "inference", "cotangent-gradients"
MATERIALS: Mapping[str, Callable[[Case], Arguments]] = {
    **dict.fromkeys(
        ("outputs", "loss", "state", "statistics", "gradients"), attrgetter("material")
    ),
    COTANGENT_GRADIENTS: attrgetter("material"),
    INFERENCE: attrgetter("material"),
    "partial-batch": smaller_batch,
    "extremes": extreme_material,
    "saturation": saturated_material,
    "kinks": kink_material,
    "corners": corner_material,
    **{check: partial(index_material, value=value) for check, value in INDICES.items()},
}


@dataclass(frozen=True)
class Pass:
    """A single pass of the model that a check compares, on the test arrays ``material``.

    Without ``cotangents``, the pass returns the gradients of the loss. With ``cotangents`` (result
    name -> array), each result is multiplied by its array, and the pass returns the gradients of
    the sum of all products.
    """

    check: str
    phase: Phase
    material: Arguments
    cotangents: ArrayDict | None = None

    def run(self, remote: Remote) -> Tensors:
        """Run the pass in the open session of a worker. Raise
        :class:`harness.worker.remote.WorkerFault` if the call fails."""
        remote.load(self.material)
        if self.phase == "inference":
            return remote.forward("inference", self.material.inputs, self.material.state)
        results = remote.gradients(self.material, self.cotangents)
        return results if self.cotangents is None else select_prefixes(results, "gradient.")

    def run_in_session(self, session: Session) -> Arrays:
        """Run the pass in a session of this process, e.g. of the oracle, and return the results by
        name."""
        arguments = self.material
        session.load(arguments.parameters, arguments.statistics)
        if self.phase == "inference":
            return session.forward("inference", arguments.inputs, arguments.state)
        batch = (arguments.inputs, arguments.state, arguments.targets)
        results, gradients = session.gradients("training", *batch, self.cotangents)
        named_gradients = {f"gradient.{n}": a for n, a in gradients.items()}
        return named_gradients if self.cotangents is not None else results | named_gradients

    def expected(self, case: Case) -> Expected:
        """Return the oracle's results of the pass."""
        return case.expect(("reproducer", self.check), self.run_in_session)


class CellForm(Form):
    """The fields that identify the differing cell in ``program.json``."""

    spec: str
    backend: str
    device: str
    dtype: paths.Dtype
    path: paths.Path


class Meta(Form):
    """The contents of ``program.json``. ``noise`` maps each tensor to its measured rounding noise
    in the cell's dtype. The noise may be below the least noise that comparisons use."""

    cell: CellForm
    check: str
    phase: Literal["training", "inference"]
    noise: dict[str, Annotated[Number, Field(ge=0)]]
    training: Any
    inference: Any


@dataclass(frozen=True)
class Failure:
    """A failing pass (``run``), the cell in which it ran, and the programs for training and
    inference."""

    cell: Cell
    training: Program
    inference: Program
    run: Pass

    @property
    def program(self) -> Program:
        """The program that the pass runs."""
        return self.training if self.run.phase == "training" else self.inference

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the program by name, and the sizes ``batch`` and ``time`` of the arrays."""
        return {**bind_sizes(self.program, self.run.material), **self.program.sizes}

    def run_oracle(self) -> Expected:
        """Return the oracle's results of the pass.

        Raises:
            UsageError: the oracle cannot run the program. (A reproducer from a user can have any
                program.)
            OracleFault: the oracle ran out of time or memory.
        """
        try:
            reference = Reference(self.training, self.inference)
            expected = reference.expect(lambda session: [self.run.run_in_session(session)])
            expected.noise(self.cell.dtype)
        except (HarnessError, OracleFault):
            raise
        except Exception as error:
            raise UsageError(
                f"the oracle cannot run its program: {shorten(str(error), 200)}"
            ) from error
        return expected


@dataclass(frozen=True)
class Reproducer(Failure):
    """The contents of a reproducer's folder: a failing pass and the values that the oracle
    expects."""

    expected: Expected


def find_first_check(findings: Iterable[Finding]) -> str | None:
    """Return the name of the first check that differs and that a reproducer can contain, i.e. a
    check of a single pass. Return None if there is no such check."""
    differing = (f.check for f in findings if f.verdict == "differ")
    return next((check for check in differing if check in MATERIALS), None)


def make_pass(case: Case, check: str) -> Pass:
    """Make the pass that a check compares. ``check`` is a key of :data:`MATERIALS`, e.g.
    ``gradients``."""
    return Pass(
        check,
        "inference" if check == INFERENCE else "training",
        MATERIALS[check](case),
        case.cotangents if check == COTANGENT_GRADIENTS else None,
    )


def check_writable(folder: Path) -> None:
    """Raise :class:`UsageError` if reproducers cannot be written to the folder. The folders that
    this function creates for the test are removed again."""
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{why(error).lower()}; the path must be a folder"
        raise UsageError(f"cannot write reproducers to {displayed(folder)}: {reason}") from None
    for path in missing:
        with suppress(OSError):  # another run is already writing to this folder
            path.rmdir()


def choose_folder(folder: Path, cell: Cell) -> Path:
    """Return the folder of a cell's reproducer, such as
    ``failures/lesson6/keras_gru/torch-float32-native``."""
    # A model's name can have several parts ("a/b"). Each part is a folder, so that "a/b" and "a-b"
    # have different folders.
    parts = map(file_name, cell.spec.split("/"))
    return folder.joinpath(*parts, f"{cell.backend}-{cell.dtype}-{cell.path}".replace("/", "-"))


def save(folder: Path, cell: Cell, case: Case, check: str) -> Path:
    """Write the reproducer of a check in :data:`MATERIALS` to the cell's folder inside ``folder``,
    and return the cell's folder. Raise :class:`UsageError` if writing fails."""
    target = choose_folder(folder, cell)
    failing_pass = make_pass(case, check)
    write(
        target,
        Reproducer(cell, case.training, case.inference, failing_pass, failing_pass.expected(case)),
    )
    return target


def write(target: Path, reproducer: Reproducer) -> None:
    """Write a reproducer into the folder ``target``. Each file is written completely or not at all.

    Raises:
        UsageError: a file cannot be written, or an existing file with this name is of a different
            kind.
    """
    run, expected = reproducer.run, reproducer.expected
    groups = {group: getattr(run.material, group) for group in GROUPS}
    groups |= {"cotangents": run.cotangents or {}, "expected": expected.values}
    meta = {
        "cell": reproducer.cell.record(),
        "check": run.check,
        "phase": run.phase,
        "noise": dict(expected.noise(reproducer.cell.dtype)),
        "training": encode(reproducer.training),
        "inference": encode(reproducer.inference),
    }
    arrays = pack(groups)
    try:
        target.mkdir(parents=True, exist_ok=True)
        places = (target / ARRAYS, kinds.ARRAYS), (target / PROGRAM, kinds.PROGRAM)
        for place, kind in places:  # check both files before replacing one
            kinds.check_kind(place, kind)
        write_whole(target / ARRAYS, arrays)
        write_whole(target / PROGRAM, json.dumps(meta).encode())
    except (OSError, FileFault) as error:
        raise UsageError(f"cannot write a reproducer to {target}: {error}") from None


def pack(groups: Mapping[str, Arrays]) -> bytes:
    """Make an ``.npz`` archive, and return its bytes. ``groups`` maps a group to its arrays by
    name; an array of the archive is named ``group/name``, e.g. ``parameters/out.W``."""
    arrays: dict[str, Any] = {
        f"{g}/{n}": a for g, group in groups.items() for n, a in group.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def load(folder: Path) -> Reproducer:
    """Read a reproducer; raise :class:`UsageError` if the folder has no valid reproducer."""
    try:
        text = read_bytes(folder / PROGRAM, MAX_PROGRAM, "a reproducer's program")
        pack = read_bytes(folder / ARRAYS, MAX_ARRAYS, "a reproducer's arrays")
        meta = formed(read_json(text, PROGRAM), Meta, PROGRAM)
        reproducer = _build_reproducer(meta, read_npz(pack, MAX_ARRAYS))
        _check_reproducer(reproducer)
        return reproducer
    except (ValueError, HarnessError) as error:
        raise UsageError(f"{displayed(folder)} holds no reproducer: {error}") from None


def bind_sizes(program: Program, material: Arguments) -> dict[str, int]:
    """Return the sizes that the shapes of the arrays determine, e.g. ``{"batch": 8, "time": 20}``.

    Raises:
        UsageError: the shape of an array does not fit another array or the program.
    """
    sizes: dict[str, int] = {}
    for group in ("inputs", "state", "targets"):
        arrays = getattr(material, group)
        for port in getattr(program, group):
            if port.name in arrays:
                shape = program.type_of(port).shape
                bind(port.name, shape, arrays[port.name].shape, program.sizes, sizes)
    return sizes


def _check_reproducer(reproducer: Reproducer) -> None:
    """Raise :class:`HarnessError` if a program of the reproducer is invalid, or if the arrays do
    not fit the programs."""
    material = reproducer.run.material
    for program in (reproducer.training, reproducer.inference):
        check_program(program)
        groups = GROUPS if program.phase == "training" else GROUPS[:-1]
        for group in groups:
            for port in getattr(program, group):
                if port.name not in getattr(material, group):
                    raise UsageError(f"there is no array {group}/{port.name}")
        bound = bind_sizes(program, material)
        for group in ("parameters", "statistics"):
            for port in getattr(program, group):
                array, shape = getattr(material, group)[port.name], program.type_of(port).shape
                bind(port.name, shape, array.shape, program.sizes, {})
        check_fits(program, bound.get("batch", 1), bound.get("time", 1), {})


def _build_reproducer(meta: Meta, arrays: Arrays) -> Reproducer:
    groups = {
        group: {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{group}/")}
        for group in ARCHIVED
    }
    return Reproducer(
        Cell(**meta.cell.model_dump(include=set(CellForm.model_fields))),
        decode(meta.training),
        decode(meta.inference),
        Pass(
            meta.check,
            meta.phase,
            Arguments(**{group: groups[group] for group in GROUPS}),
            groups["cotangents"] or None,
        ),
        Expected(groups["expected"], lambda _: meta.noise),
    )
