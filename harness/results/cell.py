"""One cell of a run, what came of it, and how its pass parts from the oracle, value by value."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, Strict

from harness.arrays import Arrays
from harness.files.forms import Form, Number, Several
from harness.results.findings import PASSING, Blame, Finding, Verdict, gravest

# A step, or a time step, its error and what is allowed.
Grown = Annotated[tuple[NonNegativeInt, Number, Number], Strict(False)]


class Link(Form):
    """A named value at the worst of its time steps, relative to its size."""

    value: str
    error: Number
    allowed: Annotated[Number, Field(gt=0)]

    @property
    def agrees(self) -> bool:
        """Whether the error is allowed."""
        return self.error <= self.allowed


class Divergence(Form):
    """The values of a pass in the order in which they are made.

    ``first`` is the first that is wrong; ``steps`` are its time steps, each with error and what is
    allowed. ``lines`` are those of ``file`` around ``line``, where its equation stands, from
    ``start`` on.
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
    """A spec on a backend and a device, in a dtype, on a path."""

    spec: str
    backend: str
    device: str
    dtype: str
    path: str

    def record(self) -> dict[str, str]:
        """The fields that identify it in a record."""
        return {name: getattr(self, name) for name in CELL_FIELDS}

    def __str__(self) -> str:
        return f"{self.spec} on {self.backend}, {self.dtype}, {self.path}"


def cell_name(cell: Cell) -> tuple[str, ...]:
    """What tells a cell from all others, what its cost depends on first."""
    return (f"{cell.backend} {cell.dtype} {cell.path}", cell.spec, cell.device)


@dataclass
class CellResult:
    """The outcome of a cell."""

    cell: Cell
    findings: list[Finding] = field(default_factory=list)
    layers: Mapping[str, str] = field(default_factory=dict)
    # Of the inference pass, and all of the training pass, until other backends' have been seen.
    outputs: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)
    version: str = ""
    seconds: float = 0.0
    could_not_run: bool = False
    kept: bool = False  # from a record file, not run now
    signature: Mapping[str, str] | None = None  # where it was kept: see harness.checking.provenance
    greeting: Mapping[str, str] | None = None
    since: str = ""  # where it was kept: when the run began that decided it
    remembered: bool = False  # an earlier run than that of the record file has decided it
    contradicted: bool = False  # its record file holds another outcome of the same origin
    location: str = ""
    # The layers whose value differs first in the forward pass, or that a hint is about; and the
    # attribute that the hint is about.
    wrong_layers: Sequence[str] = ()
    wrong_attribute: str = ""
    # Where the equation of that value stands, as file:line, and further layers that the location
    # names.
    place: str = ""
    named_layers: Sequence[str] = ()
    blamed_layers: Sequence[str] = ()  # those of the framework's own layers that are at fault
    right_if: str = ""  # a change of parameters that would explain that value
    blame: Blame | None = None
    divergence: Divergence | None = None
    doubts: Sequence[str] = ()  # what its worker said of the backend, such as misspelt methods
    not_compared: Sequence[str] = ()  # what no check could look at
    witness: Any = None  # what its layers gave, until those of other backends were heard

    @property
    def verdict(self) -> Verdict:
        """The gravest of its findings."""
        return gravest([f.verdict for f in self.findings])

    @property
    def error(self) -> float | None:
        """The largest error of any tensor that was compared as a number."""
        errors = [f.worst.error for f in self.findings if f.worst is not None]
        return max(errors, default=None)

    @property
    def ratio(self) -> float | None:
        """The largest error over its yardstick."""
        ratios = [f.worst.ratio for f in self.findings if f.worst is not None]
        return max(ratios, default=None)

    @property
    def first_fault(self) -> Finding | None:
        """The first finding that does not pass."""
        return next((f for f in self.findings if f.verdict not in PASSING), None)


def not_compared(results: Iterable[CellResult]) -> list[str]:
    """Return in words what no check of some cells could look at: each different list once."""
    return list(dict.fromkeys(", ".join(r.not_compared) for r in results if r.not_compared))


def own_fault(error: Exception, check: str = "harness", seconds: float = 0.0) -> Finding:
    """The finding of a check, or of a whole cell, that the harness itself failed to judge."""
    words = (
        "the harness could not judge this, which is a fault of its own: "
        f"{type(error).__name__}: {error}"
    )
    trace = "".join(traceback.format_exception(error))
    return Finding(check, faults=[words], verdict="error", seconds=seconds, traceback=trace)
