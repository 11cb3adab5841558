"""The command ``harness upgrade``, which compares results and speeds of two versions of a
framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.checking import report as reports
from harness.checking.console import CheckProgress
from harness.checking.engine import Engine
from harness.checking.pairs import describe_pairs
from harness.checking.request import QUICK, Request
from harness.command.options import as_label
from harness.command.outcome import CommandResult
from harness.comparison.options import UpgradeOptions
from harness.comparison.two_runs import compare_cells, compare_speeds
from harness.environments.console import choose_or_make
from harness.errors import EXIT_COULD_NOT_RUN, EXIT_PASSED, UsageError, did_you_mean
from harness.language.library import Library
from harness.output import table
from harness.output.printing import console, line
from harness.runs.changes import RunChanges
from harness.runtime.labels import backend_of
from harness.timing.console import BenchProgress, relative_lines
from harness.timing.json_file import document
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

NUMBERS, SPEED = "numbers", "speed"
Draw = Callable[[Any], None]


def run_upgrade(options: UpgradeOptions) -> CommandResult:
    """Run the command ``harness upgrade``: check and time two versions of a framework.

    Unless the output is JSON, the results of the checks are printed before the timing starts.

    Raises:
        UsageError: there are not exactly two versions, or ``--want`` has an unknown value.
        NotMade: an environment for a version cannot be created.
        HarnessError: a spec or a file is wrong.
    """
    want = options.want or (NUMBERS, SPEED)
    for word in want:
        if word not in (NUMBERS, SPEED):
            hint = did_you_mean(word, (NUMBERS, SPEED))
            raise UsageError(f"--want takes {NUMBERS} or {SPEED}, found {word!r}{hint}")
    request, timing = _make_requests(options)
    changes: dict[str, RunChanges] = {}
    drawn: list[Draw] = []
    code = EXIT_PASSED

    def show(draw: Draw) -> None:
        drawn.append(draw)
        if not options.as_json:
            draw(console())

    if NUMBERS in want:
        code, changes[NUMBERS] = _check_versions(request, show)
    if SPEED in want:
        broken, changes[SPEED] = _time_versions(timing, options.threshold, show)
        code = max(code, broken)
    code = max([code, *(found.exit_code for found in changes.values())])
    old, new = request.backends
    parts = {name: found.record() for name, found in changes.items()}
    data = {"exit_code": code, "from": old, "to": new, **parts}

    def draw_all(out: Any) -> None:
        for draw in drawn:
            draw(out)

    return CommandResult(data, draw_all, code, printed=True)


def _make_requests(options: UpgradeOptions) -> tuple[Request, BenchRequest]:
    columns = (options.old, options.new)
    one, other = (backend_of(as_label(column).partition("=")[0]) for column in columns)
    if one != other:
        raise UsageError(
            f"upgrade takes two versions of one backend, found {one} and {other}; compare two "
            f"backends with 'harness check --backend {one},{other}'"
        )
    found = choose_or_make(columns)
    if len(found.names) < 2:
        raise UsageError(f"cannot compare {found.names[0]} with itself: give two versions")
    quick = QUICK if options.quick else {}
    chosen = Library(options.folders).expand_patterns(options.specs) or quick.get("specs", ())
    common: dict[str, Any] = {"specs": chosen, "folders": options.folders}
    common |= {"backends": found.names, "pythons": found.pythons, "device": options.device}
    request = Request(**{**quick, **common})
    return request, BenchRequest(rounds=options.rounds, **common)


def _check_versions(request: Request, show: Callable[[Draw], None]) -> tuple[int, RunChanges]:
    """Check both versions of the framework. Return an exit code and the changes of verdicts and
    accuracy. The exit code is 3 if a version could not be run, otherwise 0. ``show`` prints
    results."""
    old, new = request.backends
    progress = CheckProgress(console(error=True))
    with Engine(request, progress) as engine, progress.bar:
        report = engine.run(("upgrade", old, new))
    cells = {result.cell: engine.add_signature(result) for result in report.results}
    changes = compare_cells(cells, old, new, "this run")

    def draw(out: Any) -> None:
        table.show(out, *reports.make_tables(report))
        lines = (*describe_pairs(report.pairs, report.results), *reports.describe_problems(report))
        _print(out, *lines, *changes.lines())

    show(draw)
    could_not_run = report.exit_code == EXIT_COULD_NOT_RUN
    return EXIT_COULD_NOT_RUN if could_not_run else EXIT_PASSED, changes


def _time_versions(
    timing: BenchRequest, threshold: float, show: Callable[[Draw], None]
) -> tuple[int, RunChanges]:
    """Time both versions of the framework. Return an exit code and the changes of speed above
    ``threshold``. The exit code is 3 if a version could not be timed, otherwise 0. ``show`` prints
    results."""
    old, new = timing.backends
    progress = BenchProgress(console(error=True), timing.rounds)
    with Bench(timing, events=progress) as bench, progress.bar:
        results = bench.run()
    content = document(timing, results)
    changes = compare_speeds(content, old, new, threshold, "this run")
    doubts = [f"{r.cell}: {doubt}" for r in results for doubt in r.record.doubts]
    lines = (*relative_lines(content, old), *doubts, *changes.lines())
    show(lambda out: _print(out, *lines))
    could_not_run = any(r.status == "broken" for r in results)
    return EXIT_COULD_NOT_RUN if could_not_run else EXIT_PASSED, changes


def _print(out: Any, *lines: str) -> None:
    for text in lines:
        line(out, text)
