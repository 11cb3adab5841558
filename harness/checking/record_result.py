"""The lines of one cell of a record file, as its result again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.divergence import Divergence
from harness.results.findings import Blame, Finding


def result_of(
    cell: Cell,
    begin: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    end: Mapping[str, Any],
) -> CellResult:
    """What came of a cell: the lines of its begin, its findings and its end."""
    result = CellResult(cell, seconds=float(end["seconds"]), location=end["location"])
    result.kept = True
    result.signature, result.greeting = begin.get("signature"), end.get("greeting")
    result.could_not_run = end["could_not_run"]
    result.not_compared = tuple(end.get("not_compared") or ())
    result.divergence = Divergence.of_record(end.get("divergence"))
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
