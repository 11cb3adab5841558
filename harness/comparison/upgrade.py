"""Does an upgrade change a number, or a speed? Two versions of a framework side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.checking import report as reports
from harness.checking.console import CheckProgress
from harness.checking.pairs import statements
from harness.checking.request import QUICK, Request
from harness.checking.run import Engine
from harness.command.options import as_label
from harness.comparison.two_runs import of_cells, of_speeds
from harness.environments.console import choose_or_make
from harness.environments.make import NotMade
from harness.errors import UsageError, did_you_mean
from harness.files.forms import plain
from harness.language.library import Library
from harness.output.printing import console, line, say
from harness.output.table import show
from harness.runs.compared import RunChanges
from harness.runtime.labels import backend_of
from harness.timing.console import BenchProgress, relative_lines
from harness.timing.json_file import document
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

NUMBERS, SPEED = "numbers", "speed"


def run_upgrade(columns: Sequence[str], specs: Sequence[str], options: Mapping[str, Any]) -> int:
    """Check an old column and a new one, then time them, and print what changes; returns the exit
    code.

    Raises:
        UsageError: there are not two columns, or nothing of the kind is wanted.
        HarnessError: a spec or a file is wrong.
    """
    want = options["want"] or (NUMBERS, SPEED)
    for word in want:
        if word not in (NUMBERS, SPEED):
            hint = did_you_mean(word, (NUMBERS, SPEED))
            raise UsageError(f"--want takes {NUMBERS} or {SPEED}, found {word!r}{hint}")
    try:
        request, timing = _requests(columns, specs, options)
    except NotMade as error:
        say(str(error), error=True)
        return 3
    told: dict[str, RunChanges] = {}
    code = 0
    quiet = options["as_json"]
    if NUMBERS in want:
        code, told[NUMBERS] = _numbers(request, quiet)
    if SPEED in want:
        broken, told[SPEED] = _speeds(timing, options["threshold"], quiet)
        code = max(code, broken)
    code = max([code, *(found.exit_code for found in told.values())])
    if quiet:
        old, new = request.backends
        parts = {name: found.record() for name, found in told.items()}
        say(json.dumps(plain({"exit_code": code, "from": old, "to": new, **parts})))
    return code


def _requests(
    columns: Sequence[str], specs: Sequence[str], options: Mapping[str, Any]
) -> tuple[Request, BenchRequest]:
    """What is checked, and what is timed."""
    one, other = (backend_of(as_label(column).partition("=")[0]) for column in columns)
    if one != other:
        raise UsageError(
            f"upgrade takes two versions of one backend, found {one} and {other}; hold two "
            f"backends against each other with 'harness check --backend {one},{other}'"
        )
    found = choose_or_make(columns)
    if len(found.names) < 2:
        raise UsageError(f"{found.names[0]} is to be held against itself: name another version")
    quick = QUICK if options["quick"] else {}
    chosen = Library(options["folders"]).matching(specs) or quick.get("specs", ())
    common: dict[str, Any] = {"specs": chosen, "folders": options["folders"]}
    common |= {"backends": found.names, "pythons": found.pythons, "device": options["device"]}
    request = Request(**{**quick, **common})
    return request, BenchRequest(rounds=options["rounds"], **common)


def _numbers(request: Request, quiet: bool) -> tuple[int, RunChanges]:
    """What changes of verdicts and digits; 3 with it where a column could not be run."""
    old, new = request.backends
    progress = CheckProgress(console(error=True))
    with Engine(request, progress) as engine, progress.bar:
        report = engine.run(("upgrade", old, new))
    cells = {result.cell: engine.signed(result) for result in report.results}
    found = of_cells(cells, old, new, "this run")
    if not quiet:
        show(console(), *reports.tables(report))
        _print(*statements(report.pairs, report.results), *reports.problems(report), *found.lines())
    return 3 if report.exit_code == 3 else 0, found


def _speeds(timing: BenchRequest, threshold: float, quiet: bool) -> tuple[int, RunChanges]:
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
