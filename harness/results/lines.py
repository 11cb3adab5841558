"""Lines of a record file as Python objects; ``docs/records.md`` explains them.

A reader skips lines of an unknown kind, and keeps unknown fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    Strict,
    model_serializer,
    model_validator,
)

from harness.files.forms import Form, Number, Several
from harness.oracle import tolerance
from harness.oracle.tolerance import DECADES, Deviation
from harness.results.cell import Cell, CellResult, Divergence, Grown
from harness.results.environment import Machine
from harness.results.findings import Blame, Finding, Verdict
from harness.runs.plans import RunPlan

SCHEMA_VERSION: Final = 1
COMPARED = ("error", "yardstick", "ratio", "tolerance", "worst")


class Sparse(Form):
    """Base class of the objects in a record file. The fields whose names are in ``LEFT_OUT`` are
    omitted in the file if they are empty."""

    LEFT_OUT: ClassVar[frozenset[str]] = frozenset()
    """Names of fields that are omitted in the file if they are empty."""

    @model_serializer(mode="wrap")
    def _sparse(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        found: dict[str, object] = handler(self)
        for name in self.LEFT_OUT & found.keys():
            value = found[name]
            if value is None or value is False or value in ([], {}):
                del found[name]
        return found

    def plain(self) -> dict[str, object]:
        """Return a dictionary with the fields that were set, as JSON data."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class RecordLine(Sparse):
    """A line of a record file. ``kind`` is e.g. "head", "result" or "end"."""

    kind: str

    def plain(self) -> dict[str, object]:
        """Return a dictionary with the kind and the fields that were set, as JSON data."""
        return {"kind": self.kind, **super().plain()}


class OwnModelRecord(Sparse):
    """A user's own model that is compared with a spec (``--against``), as the options of the run
    name it. ``inputs`` has the values of ``--input`` if the spec is the trace of the model."""

    model: str
    sha256: str
    map: Several[str] = ()
    takes: Several[str] = ()
    returns: Several[str] = ()
    inputs: Several[str] = ()


class GivenNumbers(Sparse):
    """Arrays that the user supplied instead of random arrays: a checksum for each group (e.g.
    ``parameters``), and the sizes."""

    sha256: dict[str, str]
    batch: int
    time: int
    sizes: dict[str, int]


class RequestRecord(Sparse):
    """The settings of a run that determine its results. A run can be resumed only with the same
    settings."""

    LEFT_OUT = frozenset({"deterministic", "against", "given"})

    sizes: dict[str, int] = Field(default_factory=dict)
    checks: Several[str] = ()
    seed: int = 0
    thorough: bool = False
    repeat: int = 0
    deterministic: bool = False
    against: OwnModelRecord | None = None
    given: GivenNumbers | None = None


class CheckedModel(Sparse):
    """A model that a run has checked, as the head (first line) of the run describes it.

    ``sizes`` includes batch and time. ``layers`` maps each layer to the name of its definition.
    ``attributes`` maps a layer to those of its attributes that differ from the defaults.
    """

    LEFT_OUT = frozenset({"attributes"})

    sizes: dict[str, int]
    layers: dict[str, str]
    attributes: dict[str, dict[str, str]] = Field(default_factory=dict)
    equations: str
    loss: str


class Head(RecordLine):
    """The first line that a run writes. It describes the run.

    ``folders`` are from ``--specs``. ``sources`` maps a spec to its file. ``files`` maps an option
    to the file that the option names. ``limits`` are limits for each cell (e.g. the timeout),
    ``notes`` are remarks on specs, and ``planned`` is the number of cells.
    """

    LEFT_OUT = frozenset({"plan", "columns", "planned", "notes"})
    kind: Literal["head"] = "head"
    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA_VERSION
    harness: str
    started: str
    arguments: Several[str]
    machine: Machine
    versions: dict[str, str]
    environment: dict[str, dict[str, str]]
    request: RequestRecord | None = None
    folders: Several[str] = ()
    sources: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)
    plan: RunPlan | None = None
    models: dict[str, CheckedModel] = Field(default_factory=dict)
    columns: dict[str, dict[str, str]] | None = None
    notes: Several[str] = ()
    planned: NonNegativeInt | None = None

    def plain(self) -> dict[str, object]:
        """Return a dictionary with the kind, the schema version and the fields that were set, as
        JSON data."""
        return {"kind": self.kind, "schema": self.schema_, **super().plain()}


class CellLine(RecordLine):
    """A line about one cell: its spec, backend, device, dtype and path."""

    spec: str
    backend: str
    device: str
    dtype: str
    path: str

    @property
    def cell(self) -> Cell:
        """The cell that the line is about."""
        return Cell(self.spec, self.backend, self.device, self.dtype, self.path)


class Begin(CellLine):
    """The line that is written when a cell begins.

    ``signature`` has everything on which the results depend, as texts by name (e.g. a checksum of
    the spec). ``since`` is set if the results are kept from an earlier run: it is the start time of
    that run. In merged files, ``started`` is the start time of the run that ran the cell. If files
    contradict each other, ``copy`` is 2 for the second result, and so on.
    """

    LEFT_OUT = frozenset({"since"})
    kind: Literal["begin"] = "begin"
    signature: dict[str, str] | None = None
    since: str | None = None
    copy_: Annotated[int, Field(alias="copy", ge=1, lt=2**31)] = 1
    started: str | None = None

    @classmethod
    def of(cls, cell: Cell, signature: Mapping[str, str] | None, since: str = "") -> Self:
        """Return the line with which a cell begins. ``since`` is the start time of the earlier run
        if its results are kept."""
        own = None if signature is None else dict(signature)
        return cls(**vars(cell), signature=own, since=since or None)


class Result(CellLine):
    """The result of one check of a cell. ``error``, ``tolerance`` and ``yardstick`` are None if no
    tensor was compared.

    ``compared`` is the number of compared tensors; it is None in records of older versions.
    """

    LEFT_OUT = frozenset({"spread", "growth", "compared"})
    kind: Literal["result"] = "result"
    backend_version: str
    check: str
    verdict: Verdict
    error: Number | None
    yardstick: Annotated[Number, Field(gt=0)] | None
    ratio: Number | None
    tolerance: Number | None
    worst: str | None
    seconds: Number
    detail: str
    traceback: str = ""
    held: Annotated[int, Field(ge=0, lt=2**63)]
    compared: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    layers: dict[str, str]
    spread: Annotated[Several[NonNegativeInt], Field(max_length=2 * DECADES + 3)] = ()
    growth: Several[Grown] = ()

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = [name for name in COMPARED if getattr(self, name) is not None]
        if given and len(given) < len(COMPARED):
            lacking = ", ".join(name for name in COMPARED if name not in given)
            raise ValueError(f"{', '.join(given)} without {lacking}: give all of them or none")
        return self

    @classmethod
    def of(cls, result: CellResult, finding: Finding) -> Self:
        """Return the line for ``finding``, the result of one check of a cell."""
        worst = finding.worst
        return cls(
            **vars(result.cell),
            backend_version=result.version,
            check=finding.check,
            verdict=finding.verdict,
            error=float(worst.error) if worst else None,
            yardstick=float(worst.yardstick) if worst else None,
            ratio=float(worst.ratio) if worst else None,
            tolerance=float(worst.tolerance) if worst else None,
            worst=worst.name if worst else None,
            seconds=round(finding.seconds, 6),
            detail=finding.detail,
            traceback=finding.traceback,
            held=finding.held,
            compared=finding.comparisons - finding.held,
            layers=dict(result.layers),
            spread=worst.spread if worst else (),
            growth=finding.growth,
        )

    @property
    def finding(self) -> Finding:
        """The result of the check as a :class:`Finding`, with everything that the line stores of
        it."""
        found = Finding(self.check, held=self.held, verdict=self.verdict, seconds=self.seconds)
        found.traceback, found.words, found.kept_growth = self.traceback, self.detail, self.growth
        found.compared = self.compared or 0
        if self.error is not None:
            assert self.worst is not None
            assert self.yardstick is not None
            assert self.tolerance is not None
            numbers = self.error, self.yardstick, self.tolerance
            found.deviations.append(Deviation(self.worst, *numbers, spread=self.spread))
        return found


class BlameLine(CellLine):
    """The line that names the part at fault for the differences of a cell (see :class:`Blame`),
    which was found after the cell ended."""

    kind: Literal["blame"] = "blame"
    blame: Blame


class End(CellLine):
    """The line that is written when a cell ends.

    ``greeting`` is the description that the worker sent when it started. ``location`` is a text
    about the first difference, and ``place`` the ``file:line`` of the equation that computes it.
    ``blamed`` are the layers at fault. ``checksum`` is a checksum of all lines of the cell.
    """

    LEFT_OUT = frozenset({"divergence", "not_compared", "checksum", "place", "layers", "blamed"})
    kind: Literal["end"] = "end"
    verdict: Verdict
    seconds: Number
    could_not_run: bool
    location: str
    place: str | None = None
    layers: Several[str] | None = None
    blamed: Several[str] | None = None
    blame: Blame | None = None
    greeting: dict[str, str] | None = None
    divergence: Divergence | None = None
    not_compared: Several[str] | None = None
    checksum: str | None = None

    @classmethod
    def of(cls, result: CellResult) -> Self:
        """Return the line that ends a cell."""
        return cls(
            **vars(result.cell),
            verdict=result.verdict,
            seconds=round(result.seconds, 6),
            could_not_run=result.could_not_run,
            location=result.location,
            place=result.place or None,
            layers=tuple(dict.fromkeys((*result.wrong_layers, *result.named_layers))),
            blamed=tuple(result.blamed_layers) or None,
            blame=result.blame,
            greeting=None if result.greeting is None else dict(result.greeting),
            divergence=result.divergence,
            not_compared=tuple(result.not_compared),
        )


class Pair(RecordLine):
    """The comparison of two backends with each other on one spec. ``error`` is the largest
    difference of any tensor, divided by the tensor's magnitude, and ``worst`` is the name of this
    tensor."""

    kind: Literal["pair"] = "pair"
    spec: str
    dtype: str
    path: str
    device: str
    backends: Annotated[tuple[str, str], Strict(False)]
    error: Number
    worst: str

    @property
    def group(self) -> tuple[str, str, str, str]:
        """The fields that are the same for both cells: spec, dtype, path and device."""
        return self.spec, self.dtype, self.path, self.device

    @property
    def digits(self) -> float:
        """The number of decimal digits, at most 16, in which the two backends agree."""
        return tolerance.digits(self.error)

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """The two cells that were compared."""
        one, other = self.backends
        rest = self.device, self.dtype, self.path
        return Cell(self.spec, one, *rest), Cell(self.spec, other, *rest)

    def __str__(self) -> str:
        on = "" if self.device == "cpu" else f" on {self.device}"
        return f"{self.spec}: {' and '.join(self.backends)}, {self.dtype}, {self.path}{on}"


class Done(RecordLine):
    """The last line that a completed run writes, with the run's duration."""

    kind: Literal["done"] = "done"
    seconds: Number


class Torn(RecordLine):
    """A line that reports that the line above it is incomplete. A writer adds it when it finds that
    an earlier writer was killed."""

    kind: Literal["torn"] = "torn"
    bytes: int


FORMS: Mapping[str, type[RecordLine]] = {
    form.model_fields["kind"].default: form
    for form in (Head, Begin, Result, End, BlameLine, Pair, Done, Torn)
}


def results_of(result: CellResult) -> Iterator[Result]:
    """Return a line for each check of a cell."""
    return (Result.of(result, finding) for finding in result.findings)
