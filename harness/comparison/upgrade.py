"""Does an upgrade change a number, or a speed? Two versions of a framework side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.bench.console import relative_lines
from harness.bench.json_file import document
from harness.bench.progress import BenchProgress
from harness.bench.request import BenchRequest
from harness.bench.run import Bench
from harness.check import report as reports
from harness.check.pairs import statements
from harness.check.progress import CheckProgress
from harness.check.request import Request
from harness.check.run import Engine
from harness.compared import Comparison
from harness.comparison.between import of_cells, of_speeds
from harness.files.forms import plain
from harness.table import show
from harness.terminal import console, line, say

NUMBERS, SPEED = "numbers", "speed"


def run_upgrade(request: Request, timing: BenchRequest, options: Mapping[str, Any]) -> int:
    """Check the two columns of a request, then time them, and print what changes from the first
    to the second; returns the exit code.

    Raises:
        HarnessError: a spec, a column or an option is wrong.
    """
    told: dict[str, Comparison] = {}
    code = 0
    old, new = request.backends
    want = options["want"] or (NUMBERS, SPEED)
    quiet = options["as_json"]
    if NUMBERS in want:
        code, told[NUMBERS] = _numbers(request, quiet)
    if SPEED in want:
        broken, told[SPEED] = _speeds(timing, options["threshold"], quiet)
        code = max(code, broken)
    code = max([code, *(found.exit_code for found in told.values())])
    if quiet:
        parts = {name: found.record() for name, found in told.items()}
        say(json.dumps(plain({"exit_code": code, "from": old, "to": new, **parts})))
    return code


def _numbers(request: Request, quiet: bool) -> tuple[int, Comparison]:
    """What changes of verdicts and digits; 3 with it where a column could not be run."""
    old, new = request.backends
    progress = CheckProgress(console(error=True))
    with Engine(request, progress) as engine, progress.bar:
        report = engine.run(("upgrade", old, new))
    cells = {result.cell: engine.signed(result) for result in report.results}
    found = of_cells(cells, old, new, "this run")
    if not quiet:
        show(console(), *reports.tables(report))
        _print(*statements(report.pairs), *reports.problems(report), *found.lines())
    return 3 if report.exit_code == 3 else 0, found


def _speeds(timing: BenchRequest, threshold: float, quiet: bool) -> tuple[int, Comparison]:
    """What changes of speed; 3 with it where a column could not be timed."""
    old, new = timing.backends
    progress = BenchProgress(console(error=True), timing.rounds)
    with Bench(timing, events=progress) as bench, progress.bar:
        results = bench.run()
    content = document(timing, results)
    found = of_speeds(content, old, new, threshold, "this run")
    if not quiet:
        doubts = (f"{r.cell}: {doubt}" for r in results for doubt in r.record.doubts)
        _print(*relative_lines(content, old), *doubts, *found.lines())
    return 3 if any(r.status == "broken" for r in results) else 0, found


def _print(*lines: str) -> None:
    for text in lines:
        line(console(), text)
