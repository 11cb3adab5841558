"""Taking up a run that was cut off: cells that had ended come back from the record file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cells import Cell, CellResult
from harness.errors import UsageError
from harness.findings import Finding
from harness.planning import Request
from harness.records import read_records
from harness.tolerance import Deviation

CELL_FIELDS = ("spec", "backend", "device", "dtype", "path")


def signature(request: Request) -> dict[str, Any]:
    """What two runs must share for the cells of one to stand in the other's report."""
    return {
        "sizes": dict(sorted(request.sizes.items())),
        "checks": list(request.checks),
        "seed": request.seed,
    }


def ended_cells(path: Path, request: Request) -> dict[Cell, CellResult]:
    """The cells that a record file holds from begin to end; none if there is no file.

    Of a cell that stands there several times, the last run counts. Raises :class:`UsageError` if
    the file comes from a run with other sizes, checks or seed.
    """
    if not path.exists():
        return {}
    found: dict[Cell, CellResult] = {}
    open_cells: dict[Cell, list[Mapping[str, Any]]] = {}
    for line in read_records(path).lines:
        if line["kind"] == "head":
            _check_same_run(path, line, request)
            open_cells.clear()
        elif line["kind"] == "begin":
            open_cells[_cell(line)] = []
            found.pop(_cell(line), None)
        elif line["kind"] == "result" and _cell(line) in open_cells:
            open_cells[_cell(line)].append(line)
        elif line["kind"] == "end" and _cell(line) in open_cells:
            found[_cell(line)] = _result(_cell(line), open_cells.pop(_cell(line)), line)
    return found


def _check_same_run(path: Path, head: Mapping[str, Any], request: Request) -> None:
    wanted, written = signature(request), head.get("request")
    if written != wanted:
        raise UsageError(
            f"{path} holds a run of {written}, and this one is of {wanted}: "
            "give the same options, or another record file"
        )


def _cell(line: Mapping[str, Any]) -> Cell:
    return Cell(**{name: line[name] for name in CELL_FIELDS})


def _result(cell: Cell, lines: list[Mapping[str, Any]], end: Mapping[str, Any]) -> CellResult:
    result = CellResult(cell, seconds=float(end["seconds"]), location=end["location"])
    result.kept = True
    result.could_not_run = bool(end["could_not_run"])
    for line in lines:
        result.version, result.layers = line["backend_version"], line["layers"]
        finding = Finding(line["check"], verdict=line["verdict"], seconds=float(line["seconds"]))
        finding.held = int(line["held"])
        finding.words = line["detail"]
        if line["error"] is not None:
            error, yardstick, tolerance = (
                float(line[n]) for n in ("error", "yardstick", "tolerance")
            )
            finding.deviations.append(Deviation(line["worst"], error, yardstick, tolerance))
        result.findings.append(finding)
    return result
