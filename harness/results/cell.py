"""One cell of a run, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.results.divergence import Divergence
from harness.results.findings import PASSING, Blame, Finding, Verdict, gravest
from harness.runtime.labels import backend_of


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
        return {
            "spec": self.spec,
            "backend": self.backend,
            "device": self.device,
            "dtype": self.dtype,
            "path": self.path,
        }

    def __str__(self) -> str:
        return f"{self.spec} on {self.backend}, {self.dtype}, {self.path}"


def again(cell: Cell, head: Mapping[str, Any], checks: Sequence[str] = ()) -> list[str]:
    """The words of the command that runs a cell once more, as the run with this head did.

    With ``checks``, only those; else the ones that the run was asked for.
    """
    request = head.get("request") or {}
    own = request.get("against") or {}
    environment = head.get("environment", {}).get(cell.backend, {})
    # The column of a user's own model is no backend to ask for; what stands before its @ is.
    backend = backend_of(cell.backend) if own else cell.backend
    spec = head.get("sources", {}).get(cell.spec, cell.spec)
    words = ["harness", "check", spec, "--backend", backend, "--dtype", cell.dtype]
    words += ["--path", cell.path] if cell.path != "native" else []
    words += ["--device", cell.device] if cell.device != "cpu" else []
    words += [word for option in head.get("files", {}).items() for word in option]
    for option, values in (
        ("--map", own.get("map", ())),
        ("--takes", own.get("takes", ())),
        ("--returns", own.get("returns", ())),
        ("--specs", head.get("folders", ())),
        ("--size", [f"{name}={size}" for name, size in request.get("sizes", {}).items()]),
        ("--env", [f"{backend}:{name}={value}" for name, value in environment.items()]),
        ("--check", checks or [c for c in request.get("checks", ()) if c != "*"]),
        ("--seed", [request["seed"]] if request.get("seed") else []),
        ("--repeat", [request["repeat"]] if request.get("repeat") else []),
    ):
        words += [word for value in values for word in (option, str(value))]
    return words + [f"--{flag}" for flag in ("thorough", "deterministic") if request.get(flag)]


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
    outputs: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
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
