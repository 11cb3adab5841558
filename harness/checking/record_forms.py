"""The fields of the lines of a record file, and their types; ``docs/records.md`` has the meaning.

Kinds and fields that are not here are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from harness.files.forms import Form, Number, formed
from harness.oracle.tolerance import DECADES
from harness.results.findings import Verdict, Who
from harness.runs.merged import PlanForm

SCHEMA_VERSION = 1
# What no result lacks when it is written.
RESULT_FIELDS = (
    "spec",
    "backend",
    "backend_version",
    "device",
    "dtype",
    "path",
    "check",
    "verdict",
    "error",
    "yardstick",
    "ratio",
    "tolerance",
    "seconds",
    "detail",
    "traceback",
    "worst",
    "held",
    "layers",
)


def _of_a_step(found: list[float]) -> list[float]:
    if not (found[0] >= 0 and found[0].is_integer()):
        raise ValueError(f"the first is the number of a step, found {found[0]}")
    return found


Spread = Annotated[list[NonNegativeInt], Field(max_length=2 * DECADES + 3)]
# A step, or a time step, its error and what is allowed.
Grown = Annotated[list[Number], Field(min_length=3, max_length=3), AfterValidator(_of_a_step)]
COMPARED = ("error", "yardstick", "ratio", "tolerance", "worst")


class AgainstForm(Form):
    """A model of a user's own, as it was asked for."""

    model: str
    sha256: str
    map: list[str] = Field(default_factory=list)
    takes: list[str] = Field(default_factory=list)
    returns: list[str] = Field(default_factory=list)


class GivenForm(Form):
    """Given numbers: the checksum of each group, and what they are numbers of."""

    sha256: dict[str, str]
    batch: int
    time: int
    sizes: dict[str, int]


class RequestForm(Form):
    """What a run that takes another one up must share with it."""

    sizes: dict[str, int] = Field(default_factory=dict)
    seed: int = 0
    thorough: bool = False
    repeat: int = 0
    deterministic: bool = False
    against: AgainstForm | None = None
    given: GivenForm | None = None


class ModelForm(Form):
    """A model that is checked: ``sizes`` with batch and time, ``layers`` by name, each with what
    it is of, and its texts."""

    sizes: dict[str, int]
    layers: dict[str, str]
    equations: str
    loss: str


class Head(Form):
    """The first line of a run. ``folders`` are those of ``--specs``, ``sources`` are files by the
    name of the spec in them, ``files`` are others by option, ``limits`` those of a cell, and
    ``planned`` is the number of its cells."""

    schema_: Annotated[int, Field(alias="schema")]
    harness: str
    started: str
    arguments: list[str]
    machine: dict[str, Any]
    versions: dict[str, Any]
    environment: dict[str, dict[str, str]]
    request: RequestForm | None = None
    folders: list[str] = Field(default_factory=list)
    sources: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)
    planned: NonNegativeInt | None = None
    plan: PlanForm | None = None
    columns: dict[str, dict[str, str]] | None = None
    models: dict[str, ModelForm] = Field(default_factory=dict)


class OfCell(Form):
    """A line that is about a cell."""

    spec: str
    backend: str
    device: str
    dtype: str
    path: str


class Begin(OfCell):
    """A cell starts. ``signature`` is what decides its numbers, and ``since`` when an earlier run
    began whose verdict is kept. In files that were merged ``started`` is when its own run began,
    and ``copy`` counts results of one cell that contradict each other, from 2 on."""

    signature: dict[str, str] | None = None
    since: str | None = None
    started: str | None = None
    copy_: Annotated[int, Field(alias="copy", ge=1, lt=2**31)] = 1


class Result(OfCell):
    """One check of a cell is decided. Numbers stand for a tensor that was compared, or for none."""

    backend_version: str
    check: str
    verdict: Verdict
    error: Number | None
    yardstick: Annotated[Number, Field(gt=0)] | None
    ratio: Number | None
    tolerance: Number | None
    seconds: Number
    detail: str
    worst: str | None
    held: Annotated[int, Field(ge=0, lt=2**63)]
    layers: dict[str, str]
    spread: Spread = Field(default_factory=list)
    growth: list[Grown] = Field(default_factory=list)

    @model_validator(mode="after")
    def _all_or_none(self) -> Result:
        given = [name for name in COMPARED if getattr(self, name) is not None]
        if given and len(given) < len(COMPARED):
            lacking = ", ".join(name for name in COMPARED if name not in given)
            raise ValueError(f"{', '.join(given)} without {lacking}: give all of them or none")
        return self


class Blamed(Form):
    """Who is at fault, and why."""

    who: Who
    words: str


class BlameLine(OfCell):
    """Of a cell that has ended, a later one has told who is at fault."""

    blame: Blamed


class LinkForm(Form):
    """A named value of a pass."""

    value: str
    error: Number
    allowed: Annotated[Number, Field(gt=0)]


class DivergenceForm(Form):
    """How a pass parts from the oracle."""

    first: str
    links: list[LinkForm]
    steps: list[Grown] = Field(default_factory=list)
    file: str = ""
    line: int = 0
    start: int = 0
    lines: list[str] = Field(default_factory=list)


class End(OfCell):
    """A cell is finished. ``greeting`` is what its worker said of itself."""

    verdict: Verdict
    seconds: Number
    could_not_run: bool
    location: str
    blame: Blamed | None = None
    greeting: dict[str, str] | None = None
    divergence: DivergenceForm | None = None
    not_compared: list[str] | None = None
    checksum: str | None = None


class PairLine(Form):
    """Two backends held against each other."""

    spec: str
    device: str
    dtype: str
    path: str
    backends: Annotated[list[str], Field(min_length=2, max_length=2)]
    error: Number
    worst: str


class Done(Form):
    """A run came to its end, after so many seconds."""

    seconds: Number


class Torn(Form):
    """A writer found an incomplete line above."""

    bytes: int


FORMS: Mapping[str, type[Form]] = {
    "head": Head,
    "begin": Begin,
    "result": Result,
    "end": End,
    "blame": BlameLine,
    "pair": PairLine,
    "done": Done,
    "torn": Torn,
}


def check_line(line: Any) -> None:
    """:class:`ValueError` for what is not a line of a record file at all."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        raise ValueError("no record: it has no kind")
    if line["kind"] == "head" and line.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"schema {line.get('schema')!r} is unknown, and {SCHEMA_VERSION} is what this version "
            "of the harness reads"
        )


def check_fields(line: Mapping[str, Any]) -> None:
    """:class:`~harness.files.forms.Malformed` for a line that lacks what its kind has."""
    form = FORMS.get(line["kind"])
    if form is not None:
        formed(line, form, line["kind"])
