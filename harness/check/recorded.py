"""The cells of a record file, as results again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.check.cell import Cell, CellResult
from harness.check.divergence import Divergence, Link
from harness.check.findings import Blame, Finding
from harness.check.record_lines import DivergenceForm
from harness.check.records import Records
from harness.oracle.tolerance import Deviation

CELL_FIELDS = ("spec", "backend", "device", "dtype", "path")


def ended(
    records: Records, accept: Callable[[Sequence[Mapping[str, Any]]], bool] = lambda _: True
) -> dict[Cell, CellResult]:
    """The cells that are there from begin to end, of records read with ``complete``.

    Of a cell that is there several times, the last run counts; one that began again and was cut
    off is not there, nor is one whose lines are not accepted.
    """
    head: Mapping[str, Any] | None = None
    found: dict[Cell, CellResult] = {}
    open_cells: dict[Cell, list[Mapping[str, Any]]] = {}
    for line in records.lines:
        if line["kind"] == "head":
            head = line
            open_cells.clear()
        elif line["kind"] == "begin":
            open_cells[cell_of(line)] = [line]
            found.pop(cell_of(line), None)
        elif line["kind"] == "result" and cell_of(line) in open_cells:
            open_cells[cell_of(line)].append(line)
        elif line["kind"] == "end" and cell_of(line) in open_cells:
            begin, *results = open_cells.pop(cell_of(line))
            if accept([begin, *results, line]):
                result = found[cell_of(line)] = _result(begin, results, line)
                result.head = head
                result.since = begin.get("since") or (head or {}).get("started", "")
    return found


def cut_off(records: Records, found: Mapping[Cell, CellResult]) -> list[Cell]:
    """The cells that began and are not among those that ended."""
    begun = dict.fromkeys(cell_of(line) for line in records.of_kind("begin"))
    return [cell for cell in begun if cell not in found]


def cell_of(line: Mapping[str, Any]) -> Cell:
    """The cell that a line is about."""
    return Cell(**{name: line[name] for name in CELL_FIELDS})


def _result(
    begin: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], end: Mapping[str, Any]
) -> CellResult:
    result = CellResult(cell_of(begin), seconds=float(end["seconds"]), location=end["location"])
    result.kept = True
    result.signature, result.greeting = begin.get("signature"), end.get("greeting")
    result.could_not_run = end["could_not_run"]
    result.divergence = _divergence(end.get("divergence"))
    if end.get("blame"):
        result.blame = Blame(end["blame"]["who"], end["blame"]["words"])
    for line in lines:
        result.version, result.layers = line["backend_version"], line["layers"]
        finding = Finding(line["check"], verdict=line["verdict"], seconds=float(line["seconds"]))
        finding.held = line["held"]
        finding.words = line["detail"]
        finding.traceback = line.get("traceback", "")
        if line["error"] is not None:
            error, yardstick, tolerance = (
                float(line[n]) for n in ("error", "yardstick", "tolerance")
            )
            spread = tuple(line.get("spread", ()))
            worst = Deviation(line["worst"], error, yardstick, tolerance, spread=spread)
            finding.deviations.append(worst)
        finding.kept_growth = tuple(
            (int(step), float(error), float(allowed))
            for step, error, allowed in line.get("growth", ())
        )
        result.findings.append(finding)
    return result


def _divergence(record: Mapping[str, Any] | None) -> Divergence | None:
    if record is None:
        return None
    found = DivergenceForm.model_validate(record)
    return Divergence(
        found.first,
        tuple(Link(link.value, link.error, link.allowed) for link in found.links),
        tuple((int(step), error, allowed) for step, error, allowed in found.steps),
        found.file,
        found.line,
        found.start,
        tuple(found.lines),
    )
