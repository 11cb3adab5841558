"""The cells of a record file, as results again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

from harness.check.cell import Cell, CellResult
from harness.check.divergence import Divergence, Link
from harness.check.findings import Blame, Finding
from harness.check.records import Records
from harness.oracle.tolerance import Deviation

CELL_FIELDS = ("spec", "backend", "device", "dtype", "path")
_key = itemgetter(*CELL_FIELDS)
# The cells of records that somebody holds: several readers ask for those of one file.
_found: WeakKeyDictionary[Records, dict[Cell, CellResult]] = WeakKeyDictionary()


def ended(records: Records) -> Mapping[Cell, CellResult]:
    """The cells that are there from begin to end, of records read with ``complete``.

    Of a cell that is there several times, the last run counts; one that began again and was cut
    off is not there. Made once for each file that was read.
    """
    found = _found.get(records)
    if found is None:
        found = _found[records] = _ended(records)
    return found


def _ended(records: Records) -> dict[Cell, CellResult]:
    found: dict[Cell, CellResult] = {}
    open_cells: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    # Of a cell that another one has told of, maybe between the verdict and the end of its own.
    blames: dict[tuple[str, ...], Blame] = {}
    for line in records.lines:
        kind = line["kind"]
        if kind == "head":
            open_cells.clear()
        elif kind == "begin":
            open_cells[_key(line)] = [line]
            blames.pop(_key(line), None)
            found.pop(cell_of(line), None)
        elif kind == "result" and (lines := open_cells.get(_key(line))):
            lines.append(line)
        elif kind == "end" and (lines := open_cells.pop(_key(line), None)):
            begin, *results = lines
            result = _result(begin, results, line)
            result.blame = blames.get(_key(line), result.blame)
            found[result.cell] = result
        elif kind == "blame":
            blames[_key(line)] = _blame(line["blame"])
            if cell_of(line) in found:
                found[cell_of(line)].blame = blames[_key(line)]
    return found


def cut_off(records: Records, found: Mapping[Cell, CellResult]) -> list[Cell]:
    """The cells that began and are not among those that ended."""
    begun = dict.fromkeys(cell_of(line) for line in records.of_kind("begin"))
    return [cell for cell in begun if cell not in found]


def stopped(records: Records) -> str:
    """In words, how far the last run of a file came that did not come to its end; else empty."""
    heads = (number for number, line in enumerate(records.lines) if line["kind"] == "head")
    last = records.lines[max(heads, default=0) :]
    planned = (last[0].get("planned") or 0) if last else 0
    done = sum(line["kind"] == "end" for line in last)
    return f"stopped after {done} of {planned} cells" if done < planned else ""


def cell_of(line: Mapping[str, Any]) -> Cell:
    """The cell that a line is about."""
    return Cell(*_key(line))


def _result(
    begin: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], end: Mapping[str, Any]
) -> CellResult:
    result = CellResult(cell_of(begin), seconds=float(end["seconds"]), location=end["location"])
    result.kept = True
    result.signature, result.greeting = begin.get("signature"), end.get("greeting")
    result.could_not_run = end["could_not_run"]
    result.divergence = _divergence(end.get("divergence"))
    if end.get("blame"):
        result.blame = _blame(end["blame"])
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


def _blame(record: Mapping[str, str]) -> Blame:
    return Blame(record["who"], record["words"])  # type: ignore[arg-type]


def _divergence(record: Mapping[str, Any] | None) -> Divergence | None:
    if record is None:
        return None
    return Divergence(
        record["first"],
        tuple(
            Link(link["value"], float(link["error"]), float(link["allowed"]))
            for link in record["links"]
        ),
        tuple((int(n), float(e), float(a)) for n, e, a in record.get("steps", ())),
        record.get("file", ""),
        record.get("line", 0),
        record.get("start", 0),
        tuple(record.get("lines", ())),
    )
