"""Cells (a spec on a backend, with device, dtype and path), their results, and the values that
differ from the oracle."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, Strict

from harness.arrays import Arrays
from harness.files.forms import Form, Number, Several
from harness.results.findings import PASSING, Blame, Finding, Verdict, gravest

# A training step or a time step, with its error and tolerance.
Grown = Annotated[tuple[NonNegativeInt, Number, Number], Strict(False)]


class Link(Form):
    """A named value of a forward or backward pass (e.g. ``gru/h``), compared with the oracle.

    ``error`` is the largest relative error of the value over all time steps, and ``allowed`` is the
    tolerance.
    """

    value: str
    error: Number
    allowed: Annotated[Number, Field(gt=0)]

    @property
    def agrees(self) -> bool:
        """True if the error is within the tolerance."""
        return self.error <= self.allowed


class Divergence(Form):
    """The comparison of a pass, value by value: ``links`` are the values of a forward or backward
    pass in the order of computation.

    ``first`` is the first wrong value, and ``steps`` has its error and tolerance by time step. The
    equation that computes it is on ``line`` of ``file``. ``lines`` are lines of this file,
    beginning with line number ``start``.
    """

    first: str
    links: Several[Link]
    steps: Several[Grown] = ()
    file: str = ""
    line: int = 0
    start: int = 0
    lines: Several[str] = ()


CELL_FIELDS = ("spec", "backend", "device", "dtype", "path")


@dataclass(frozen=True)
class Cell:
    """A combination of spec, backend, device, dtype and path."""

    spec: str
    backend: str
    device: str
    dtype: str
    path: str

    def record(self) -> dict[str, str]:
        """Return a dictionary with the fields that identify the cell, e.g. ``backend``, as they are
        in a record file."""
        return {name: getattr(self, name) for name in CELL_FIELDS}

    def __str__(self) -> str:
        return f"{self.spec} on {self.backend}, {self.dtype}, {self.path}"


def cell_name(cell: Cell) -> tuple[str, ...]:
    """Return the parts of a cell's name, e.g. ``("torch float32 native", "mlp", "cpu")``. The first
    part has most influence on how long the cell takes."""
    return (f"{cell.backend} {cell.dtype} {cell.path}", cell.spec, cell.device)


@dataclass
class CellResult:
    """The result of a cell: the results of its checks (``findings``), and which values were wrong
    and why."""

    cell: Cell
    findings: list[Finding] = field(default_factory=list)
    layers: Mapping[str, str] = field(default_factory=dict)
    # Values of the inference pass and the training pass, kept until other backends are compared.
    outputs: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)
    version: str = ""
    seconds: float = 0.0
    could_not_run: bool = False
    kept: bool = False  # read from a record file, not run now
    signature: Mapping[str, str] | None = None  # if kept: see harness.checking.history
    greeting: Mapping[str, str] | None = None
    since: str = ""  # if kept: the start time of the run that produced the verdict
    remembered: bool = False  # the record file itself kept the result from an earlier run
    contradicted: bool = False  # the record file has a different outcome of the same origin
    location: str = ""
    # The layers whose value is the first wrong value in the forward pass. Or, if there is a hint,
    # the layers and the attribute that it is about.
    wrong_layers: Sequence[str] = ()
    wrong_attribute: str = ""
    # The place of that value's equation as file:line, and other layers that ``location`` names.
    place: str = ""
    named_layers: Sequence[str] = ()
    blamed_layers: Sequence[str] = ()  # framework layers that are at fault
    right_if: str = ""  # a change of parameters that would explain that value
    blame: Blame | None = None
    divergence: Divergence | None = None
    doubts: Sequence[str] = ()  # possible mistakes in the backend, such as misspelt methods
    not_compared: Sequence[str] = ()  # values that no check could compare
    witness: Any = None  # values of the cell's layers, kept until other backends are compared

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of the cell's checks."""
        return gravest([f.verdict for f in self.findings])

    @property
    def error(self) -> float | None:
        """The largest error of all compared tensors; None if no tensor was compared."""
        errors = [f.worst.error for f in self.findings if f.worst is not None]
        return max(errors, default=None)

    @property
    def ratio(self) -> float | None:
        """The largest ratio of an error to its yardstick; None if no tensor was compared."""
        ratios = [f.worst.ratio for f in self.findings if f.worst is not None]
        return max(ratios, default=None)

    @property
    def first_fault(self) -> Finding | None:
        """The result of the first check that does not pass; None if all pass."""
        return next((f for f in self.findings if f.verdict not in PASSING), None)


def not_compared(results: Iterable[CellResult]) -> list[str]:
    """Return notes about the values that no check could compare. Each note occurs once, even if it
    applies to several cells."""
    return list(dict.fromkeys(", ".join(r.not_compared) for r in results if r.not_compared))


def harness_fault(error: Exception, check: str = "harness") -> Finding:
    """Return the result of a check that failed because the harness itself raised an exception.
    ``check`` names the check in which the exception was raised."""
    error_text = f"error in the harness itself, not in the backend: {type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return Finding(check, faults=[error_text], verdict="error", traceback=trace)
