"""What the suite tells beside pytest's own lines: how long each check took, and on GitHub where.

Reports carry their cell as plain data: with pytest-xdist they come from another process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import pytest

from harness.output import github
from harness.output.markdown import escaped, table
from harness.output.printing import shown
from harness.output.workflow import annotating
from harness.results.cell import Cell
from harness.suite.cells import Cells, parameters


class Told:
    """A plugin of one session that was asked for ``backends``; ``tests`` are what it has by the
    parameters of their names, and ``reports`` those of checks, as they come."""

    def __init__(self, backends: Sequence[str], tests: Mapping[str, tuple[Cell, str]]) -> None:
        self.reports: list[Any] = []
        self._backends, self._tests = backends, tests

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """The duration of a test is that of its check: the whole cell has run in the first."""
        report = yield
        given = getattr(item, "funcargs", {})
        cells = given.get("cells")
        if call.when == "call" and isinstance(cells, Cells):
            cell, check = given["cell"], given["check"]
            places: list[str] = []
            if cells.has_run(cell):
                report.duration = cells.seconds(cell, check)
                places = list(cells.places(cell)) if report.failed else []
            report.harness = {"cell": cell.record(), "check": check, "places": places}
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what the end is told from; a test whose process was lost, or that could not be
        begun, is of a cell too."""
        lost = not hasattr(report, "harness") and report.failed
        if lost and (found := self._tests.get(parameters(report.nodeid))):
            cell, check = found
            report.harness = {"cell": cell.record(), "check": check, "places": []}
        if hasattr(report, "harness"):
            self.reports.append(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing compared is an error, as in ``harness check``: a backend of which all tests were
        skipped is not a success."""
        whole = exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly
        if whole and not _is_part(session.config):
            asked = {backend_of(report) for report in self.reports}
            compared = {backend_of(report) for report in self.reports if was_compared(report)}
            if asked != compared or not asked:
                session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Errors beside lines of files, and the summary of the step, where GitHub runs this."""
        if _is_part(terminalreporter.config):
            return
        if annotating():
            found = [
                github.annotation(title, message, places)
                for title, message, places in failures(self.reports)
            ]
            for text in github.few(found):
                terminalreporter.write_line(text)
        if self.reports and (trouble := github.summarise(markdown(self.reports, self._backends))):
            terminalreporter.write_line(shown(trouble))


def _is_part(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist, whose reports another one collects."""
    return hasattr(config, "workerinput")


def backend_of(report: Any) -> str:
    """The backend that a report is about."""
    return str(report.harness["cell"]["backend"])


def was_compared(report: Any) -> bool:
    """Whether a check had something to compare: it agrees, or differs as known."""
    return bool(report.passed or hasattr(report, "wasxfail"))


def markdown(reports: Sequence[Any], asked: Sequence[str]) -> str:
    """How many checks passed of every system on every backend, those in the order in which they
    were ``asked`` for, and what failed: reports come as processes end."""
    told = set(map(backend_of, reports))
    backends = [*(b for b in asked if b in told), *sorted(told.difference(asked))]
    rows: dict[str, dict[str, list[Any]]] = {}
    for report in reports:
        row = rows.setdefault(report.harness["cell"]["spec"], {})
        row.setdefault(backend_of(report), []).append(report)
    entries = [[spec, *(_counted(row.get(b, [])) for b in backends)] for spec, row in rows.items()]
    found = [f"### harness suite: {_counted(reports)}", ""]
    found += [table(["system", *backends], entries), ""]
    for title, message, _ in failures(reports):
        found.append(f"- **{escaped(title)}**: {escaped(message)}")
    return "\n".join(found) + "\n"


def failures(reports: Iterable[Any]) -> list[tuple[str, str, Sequence[str]]]:
    """Of each cell that fails: a title with its checks, what the first of them says, and places."""
    cells: dict[str, list[Any]] = {}
    for report in reports:
        if report.failed:
            cells.setdefault(str(Cell(**report.harness["cell"])), []).append(report)
    found = []
    for cell, failed in cells.items():
        title = f"{cell}: {', '.join(r.harness['check'] for r in failed)}"
        found.append((title, str(failed[0].longrepr), failed[0].harness["places"]))
    return found


def _counted(reports: Sequence[Any]) -> str:
    counts: Mapping[str, int] = {
        "failed": sum(report.failed for report in reports),
        "passed": sum(report.passed for report in reports),
        "known": sum(hasattr(report, "wasxfail") for report in reports),
        "skipped": sum(report.skipped and not hasattr(report, "wasxfail") for report in reports),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "-"
