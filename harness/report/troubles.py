"""Cells that do not pass, in words: what, where, who is at fault, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.check.cell import CellResult
from harness.check.findings import PASSING, Finding
from harness.report.cells import failing
from harness.report.inputs import CheckRun

FAULTS: Mapping[str, str] = {
    "layer": "The framework's layer is at fault.",
    "plugin": "The plugin is at fault.",
    "gradient": "The framework's gradient is at fault.",
    "spec": "The spec is at fault.",
    "unknown": "Who is at fault is not known.",
}


@dataclass(frozen=True)
class Trouble:
    """A cell that does not pass."""

    title: str
    tone: str
    location: str
    who: str
    blame: str
    checks: Sequence[Finding]
    tracebacks: Sequence[str]
    command: str
    excerpt: Sequence[Mapping[str, Any]] = ()
    chain: Sequence[Mapping[str, Any]] = ()
    by_time: Sequence[Mapping[str, Any]] = ()


def troubles(check: CheckRun) -> list[Trouble]:
    """All of them, those that differ first."""
    head = check.heads[-1] if check.heads else {}
    return [_trouble(result, head) for result in failing(check.cells)]


def _trouble(result: CellResult, head: Mapping[str, Any]) -> Trouble:
    found = [f for f in result.findings if f.verdict not in PASSING]
    blame = result.blame
    return Trouble(
        title=f"{result.cell}: {result.verdict}",
        tone="bad" if result.verdict == "differ" else "broken",
        location=result.location,
        who=FAULTS[blame.who] if blame else "",
        blame=blame.words if blame else "",
        checks=found,
        tracebacks=list(dict.fromkeys(f.traceback for f in found if f.traceback)),
        command=command(result, head),
    )


def command(result: CellResult, head: Mapping[str, Any]) -> str:
    """The command that runs a cell again, with the sizes and the seed of its run."""
    cell, request = result.cell, head.get("request") or {}
    words = ["harness", "check", cell.spec, "--backend", cell.backend, "--dtype", cell.dtype]
    words += ["--path", cell.path] if cell.path != "native" else []
    words += ["--device", cell.device] if cell.device != "cpu" else []
    for name, size in (request.get("sizes") or {}).items():
        words += ["--size", f"{name}={size}"]
    words += ["--seed", str(request["seed"])] if request.get("seed") else []
    return shlex.join(words)
