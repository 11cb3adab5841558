"""Failed cells as text for a report: the wrong value, its equation, the part at fault, and the
command that reruns the cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.checking.checks import FINDINGS
from harness.checking.history import rerun_command
from harness.checking.known_differences import draft_entries
from harness.output.shell import command_line
from harness.report.cells import list_failing
from harness.report.inputs import CheckRun
from harness.results.cell import CellResult, Divergence
from harness.results.findings import PASSING, Finding
from harness.results.lines import Head

# The maximum number of stops (values or layers) before the first wrong one, and from it on.
BEFORE, AFTER = 5, 7
FAULTS: Mapping[str, str] = {
    "layer": "The framework's layer is at fault.",
    "plugin": "The plugin is at fault.",
    "gradient": "The framework's gradient is at fault.",
    "compiler": "The framework's compiler is at fault.",
    "spec": "The spec is at fault.",
    "unknown": "It is not known which part is at fault.",
}


@dataclass(frozen=True)
class Line:
    """A line of a spec, which the page shows. If the line computes the first wrong value, ``note``
    says so."""

    number: int
    text: str
    note: str = ""


@dataclass(frozen=True)
class Stop:
    """An item in the list of values that leads to the first wrong value: the last value of a layer,
    or the first wrong value itself.

    ``words`` say whether the backend's value agrees with the oracle. ``tone`` is the CSS class of
    the item.
    """

    name: str
    words: str
    tone: str


@dataclass(frozen=True)
class TimeStep:
    """The error of the first wrong value at one time step, as a bar on the page.

    ``share`` is the length of the bar, from 0 to 1. It is 0 if the error is within the tolerance,
    and 1 if the error is 100,000 times the tolerance or more.
    """

    number: int
    words: str
    share: float


@dataclass(frozen=True)
class FailedCell:
    """A cell that does not pass.

    - ``location`` says where the fault is (e.g. in which equation), and ``blame`` which part is at
      fault.
    - ``chain`` lists the values before and after the first wrong value, and ``by_time`` the errors
      of this value by time step.
    - ``command`` reruns the failed checks.
    - ``reproducer`` is a command that writes a reproducer, and ``known`` the text for
      ``known_differences.yaml`` that accepts the differences. They are empty if no check differs,
      or if the cell is the user's own model.
    """

    title: str
    tone: str
    location: str
    who: str
    blame: str
    checks: Sequence[Finding]
    tracebacks: Sequence[str]
    command: str
    reproducer: str = ""
    known: str = ""
    file: str = ""
    excerpt: Sequence[Line] = ()
    chain: Sequence[Stop] = ()
    by_time: Sequence[TimeStep] = ()


def describe_failed_cells(check: CheckRun, most: int) -> tuple[list[FailedCell], int]:
    """Return at most ``most`` failed cells, those with differences first, and the number of failed
    cells that are left out."""
    # For each cell, the head of the run that produced its result.
    heads = {cell: [*runs.values()][-1].head for cell, runs in check.records.cells.items()}
    failures = list_failing(check.cells)
    return [_make_failed_cell(r, heads.get(r.cell)) for r in failures[:most]], max(
        0, len(failures) - most
    )


def _make_failed_cell(result: CellResult, head: Head | None) -> FailedCell:
    failures = [f for f in result.findings if f.verdict not in PASSING]
    blame = result.blame
    # Rerun only the failed checks, because all checks of a cell may take many times as long.
    again_ = command_line(rerun_command(result.cell, head, _check_names(failures)))
    # A user's own model has no reproducer, and no known differences.
    own = head is not None and head.request is not None and head.request.against
    differs = [f for f in failures if f.verdict == "differ"] if not own else []
    return FailedCell(
        title=f"{result.cell}: {result.verdict}",
        tone="bad" if result.verdict == "differ" else "broken",
        location=result.location,
        who=FAULTS[blame.who] if blame else "",
        blame=blame.words if blame else "",
        checks=failures,
        tracebacks=list(dict.fromkeys(f.traceback for f in failures if f.traceback)),
        command=again_,
        reproducer=command_line(
            [
                *rerun_command(result.cell, head, _check_names(differs)),
                "--reproducers",
                "reproducers",
            ]
        )
        if differs
        else "",
        known=draft_entries(result, [f.check for f in differs]) if differs else "",
        **_divergence_fields(result.divergence),
    )


def _check_names(found: Sequence[Finding]) -> list[str]:
    return [f.check for f in found if f.check in FINDINGS]


def _divergence_fields(divergence: Divergence | None) -> dict[str, Any]:
    if divergence is None:
        return {}
    steps = [
        TimeStep(n, f"{error:.1e} of {most:.1e}", _excess(error, most))
        for n, error, most in divergence.steps
    ]
    wrong = [step for step in steps if step.share > 0]
    at = f" at time step {wrong[0].number}" if wrong else ""
    note = f"first wrong value, {divergence.first.rpartition('/')[2]}{at}"
    lines = [
        Line(n, text, note if n == divergence.line else "")
        for n, text in enumerate(divergence.lines, start=divergence.start)
    ]
    return {
        "file": divergence.file,
        "excerpt": lines,
        "chain": _make_chain(divergence),
        "by_time": steps,
    }


def _make_chain(divergence: Divergence) -> list[Stop]:
    """Return the list of values around the first wrong value: one item for each layer, and one for
    the first wrong value itself."""
    stops: list[Stop] = []
    seen = False
    for link in divergence.links:
        layer, _, name = link.value.rpartition("/")
        if link.value == divergence.first:
            seen = True
            where = f"{name} of {layer}" if layer else name
            stops.append(Stop(where, f"✗ {link.error:.1e}, allowed {link.allowed:.1e}", "first"))
            continue
        layer_name = layer or name
        if stops and stops[-1].name == layer_name:
            # Keep only one stop for each layer, with the state of the layer's last value.
            stops.pop()
        words = "agrees" if link.agrees else "follows" if seen else "differs"
        stops.append(Stop(layer_name, words, "" if link.agrees else "follows"))
    at = next(n for n, stop in enumerate(stops) if stop.tone == "first")
    return stops[max(0, at - BEFORE) : at + AFTER]


def _excess(error: float, allowed: float) -> float:
    """Return a number from 0 to 1 that says how far an error exceeds the tolerance ``allowed``: 0
    if it does not, 1 if it is at least 100,000 times the tolerance. Between these it grows with the
    logarithm."""
    if error <= allowed:
        return 0.0
    return min(1.0, 0.15 + math.log10(error / allowed) / 6) if math.isfinite(error) else 1.0
