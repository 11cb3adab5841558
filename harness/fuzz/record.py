"""The record file of ``harness fuzz``: JSON lines about the run, its cases and its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.errors import UsageError
from harness.files import kinds
from harness.files.forms import Several
from harness.files.user_file import FileFault, displayed
from harness.results.file import RecordError, read_records
from harness.results.lines import RecordLine
from harness.results.records import Records


class FuzzRun(RecordLine):
    """The first line of a run: the options that determine its cases."""

    kind: Literal["fuzz"] = "fuzz"
    seed: int
    dtypes: Several[str]
    path: str
    device: str


class CaseLine(RecordLine):
    """The outcome of a case on a backend. ``functions`` are the functions and layers of the case,
    and ``faults`` are the identities of its faults."""

    kind: Literal["case"] = "case"
    number: int
    backend: str
    outcome: Literal["agree", "differ", "unsupported"]
    functions: Several[str]
    dtype: str
    values: str
    faults: Several[str] = ()


class Fault(RecordLine):
    """A fault: the smallest case with it, and what differs.

    ``functions`` are the functions and layers of the smallest case. ``mode`` says how the case ran,
    e.g. "compiled". ``lengths`` is "any" if the smallest case has only lengths of 1, "short" if all
    are below 16, otherwise "long". ``model`` is the smallest case in the spec language.
    """

    kind: Literal["fault"] = "fault"
    backend: str
    version: str
    functions: Several[str]
    values: str
    dtype: str
    check: str
    mode: str
    lengths: str
    detail: str
    model: str
    batch: int
    time: int
    number: int
    known: str = ""
    folder: str = ""

    @property
    def identity(self) -> str:
        """A text that is equal for all cases with the same cause."""
        parts = (self.backend, "+".join(self.functions), self.values, self.dtype, self.check)
        return " ".join((*parts, self.mode, self.lengths))


LINES: dict[str, type[RecordLine]] = {"fuzz": FuzzRun, "case": CaseLine, "fault": Fault}


def read_lines(path: Path, run: FuzzRun) -> Records:
    """Return the lines of a record file, for a run that continues it. An incomplete line that a
    killed run left is skipped.

    Raises:
        RecordError: the file cannot be read, or a line is not valid.
        UsageError: the file is of a run with other options.
    """
    try:
        kinds.check_kind(path, kinds.FUZZED)
    except FileFault as fault:
        raise RecordError(f"cannot read {displayed(path)}: {fault.reason}") from None
    records = read_records(path, LINES) if path.exists() else Records(())
    for line in records.of_kind(FuzzRun):
        if line != run:
            options = ", ".join(f"{n} {v}" for n, v in line.plain().items() if n != "kind")
            raise UsageError(
                f"{displayed(path)} is of a run with other options ({options}); use the same "
                "options to resume it, or name another file"
            )
    return records
