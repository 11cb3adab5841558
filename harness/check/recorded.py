"""The cells that a record file tells of, put together from its lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.check.cell import Cell, CellResult
from harness.check.findings import Blame, Finding
from harness.oracle.tolerance import Deviation

CELL_FIELDS = ("spec", "backend", "device", "dtype", "path")


def ended(lines: Iterable[Mapping[str, Any]]) -> tuple[dict[Cell, CellResult], list[Cell]]:
    """The cells that the lines hold from begin to end, and those that were cut off.

    Of a cell that stands there several times, the last run counts. The lines are complete, as
    :func:`harness.check.records.read_records` has them with ``complete=True``.
    """
    found: dict[Cell, CellResult] = {}
    begun: dict[Cell, list[Mapping[str, Any]]] = {}
    cut: dict[Cell, None] = {}
    for line in lines:
        if line["kind"] == "head":
            cut |= dict.fromkeys(begun)
            begun.clear()
        elif line["kind"] == "begin":
            begun[_cell(line)] = [line]
            found.pop(_cell(line), None)
        elif line["kind"] == "result" and _cell(line) in begun:
            begun[_cell(line)].append(line)
        elif line["kind"] == "end" and _cell(line) in begun:
            begin, *results = begun.pop(_cell(line))
            found[_cell(line)] = _result(begin, results, line)
    cut |= dict.fromkeys(begun)
    return found, [cell for cell in cut if cell not in found]


def _cell(line: Mapping[str, Any]) -> Cell:
    return Cell(**{name: line[name] for name in CELL_FIELDS})


def _result(
    begin: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], end: Mapping[str, Any]
) -> CellResult:
    result = CellResult(_cell(begin), seconds=float(end["seconds"]), location=end["location"])
    result.kept = True
    result.signature, result.greeting = begin.get("signature"), end.get("greeting")
    result.could_not_run = end["could_not_run"]
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
