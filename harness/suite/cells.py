"""The cells of the pytest suite (a model on a backend, in one dtype). When the first test of a cell
starts, all checks of the cell run; its other tests use the stored results."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pytest

from harness.checking.checks import FINDINGS
from harness.checking.engine import Engine
from harness.checking.report import find_places
from harness.output import github
from harness.output.markdown import escaped, table
from harness.output.printing import annotating, shown
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding

ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
NAME = f"{__package__}.test_checks"
"""The name of the module with the tests, e.g. for ``pytest --pyargs``."""

# Names of the findings of failures that occur before the first check of a cell.
BEFORE = ("oracle", "start", "open")
# Names of all findings that the tests of the suite report.
SHOWN = frozenset({*FINDINGS, *FINDINGS.values(), *BEFORE})


class Cells:
    """The results of the cells in a pytest session.

    ``selected`` has a pair (cell, check) for each selected test; a cell runs only these checks.
    """

    def __init__(self, engine: Engine, selected: Iterable[tuple[Cell, str]]) -> None:
        self.engine = engine
        self._groups: dict[Cell, dict[str, None]] = {}
        for cell, check in selected:
            self._groups.setdefault(cell, {})[FINDINGS[check]] = None
        turns = [name for name, _ in groupby(cell.backend for cell in self._groups)]
        self._in_turn = len(turns) == len({*turns})
        self._results: dict[Cell, CellResult] = {}
        self._failed: dict[Cell, str] = {}
        self._counted_checks: dict[Cell, set[str]] = {}

    def findings(self, cell: Cell, check: str) -> list[Finding]:
        """Return the results of one check of a cell, and the failures that occurred before any
        check (e.g. at the start of the worker). The first call for a cell runs all selected checks
        of the cell.

        Raises:
            LookupError: the cell has a result that no test of the suite reports.
            BaseException: the run of the cell ended with this exception.
            pytest.fail.Exception: the run of the cell ended with an exception in an earlier test.
        """
        findings = self._get_result(cell).findings
        return [f for f in findings if f.check in (check, FINDINGS[check], *BEFORE)]

    def has_run(self, cell: Cell) -> bool:
        """Return whether the checks of a cell have run."""
        return cell in self._results

    def location(self, cell: Cell) -> str:
        """Return a text about the cell's first difference from the oracle; an empty text if the
        cell agrees."""
        return self._get_result(cell).location

    def places(self, cell: Cell) -> Iterator[str]:
        """Yield places (``file:line``) for error messages: of the wrong equation, of the wrong
        layer, and of the name of the cell's model."""
        return find_places(self._get_result(cell), self.engine.specs)

    def seconds(self, cell: Cell, check: str) -> float:
        """Return the duration of a check of a cell in seconds. The first call for a cell adds the
        time that belongs to no check, e.g. for loading the model."""
        result = self._get_result(cell)
        counted = self._counted_checks.setdefault(cell, set())
        seconds = 0.0
        if not counted:
            seconds = max(0.0, result.seconds - sum(f.seconds for f in result.findings))
        for finding in self.findings(cell, check):
            seconds += 0.0 if finding.check in counted else finding.seconds
            counted.add(finding.check)
        counted.add("")  # marks the time of no check as counted
        return seconds

    def _get_result(self, cell: Cell) -> CellResult:
        if cell in self._failed:
            text = f"{cell} ended with an exception: {self._failed[cell]}"
            raise pytest.fail.Exception(text, pytrace=False)
        if cell not in self._results:
            try:
                self._results[cell] = self._run(cell)
            except BaseException as error:  # e.g. a time limit of the pytest session
                self._failed[cell] = f"{type(error).__name__}: {error}"
                raise
        return self._results[cell]

    def _run(self, cell: Cell) -> CellResult:
        if self._in_turn:
            for backend, worker in self.engine.workers.items():
                if backend != cell.backend:
                    worker.close()  # this backend has no more tests
        result = self.engine.run_cell(cell, tuple(self._groups[cell]))
        if hidden := [f.check for f in result.findings if f.check not in SHOWN]:
            raise LookupError(f"no test reports the findings {', '.join(hidden)} of {cell}")
        return result


def name_cell(cell: Cell) -> str:
    """Return a cell's name as part of test names, e.g. ``torch-lesson6/simple_rnn-float32``."""
    usual = {"native", "cpu"}
    further = [part for part in (cell.path, cell.device) if part not in usual]
    return "-".join([cell.backend, cell.spec, cell.dtype, *further])


def list_tests(engine: Engine) -> Mapping[str, tuple[Cell, str]]:
    """Return a dictionary of the planned tests: from the text in brackets in the test's name, e.g.
    ``torch-mlp-float32-outputs``, to the cell and the check."""
    return {
        f"{name_cell(cell)}-{check}": (cell, check) for cell in engine.cells() for check in FINDINGS
    }


def parameters(nodeid: str) -> str:
    """Return the text in brackets in a test's name, e.g. ``torch-mlp-float32-outputs``. Return an
    empty text for tests that are not part of the suite."""
    name, _, rest = nodeid.partition("[")
    return rest.rpartition("]")[0] if name.startswith(f"{NAME}::") else ""


# The suite adds the duration of each check to pytest's output, and annotations on GitHub. A report
# has its cell as plain data, because with pytest-xdist reports come from different processes.


class ReportCollector:
    """A pytest plugin that collects the test reports of a session. ``tests`` maps the text in
    brackets in a test's name to the cell and the check that it tests."""

    def __init__(self, backends: Sequence[str], tests: Mapping[str, tuple[Cell, str]]) -> None:
        self.reports: list[Any] = []
        self._backends, self._tests = backends, tests

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """Report the duration of the check as the duration of its test. Otherwise the first test of
        a cell would have the duration of the whole cell, because the cell runs in it."""
        report = yield
        arguments = getattr(item, "funcargs", {})
        cells = arguments.get("cells")
        if call.when == "call" and isinstance(cells, Cells):
            cell, check = arguments["cell"], arguments["check"]
            places: list[str] = []
            if cells.has_run(cell):
                report.duration = cells.seconds(cell, check)
                places = list(cells.places(cell)) if report.failed else []
            report.harness = {"cell": cell.record(), "check": check, "places": places}
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Store the report of a test. A report is also stored if the process of the test crashed,
        or if the test failed before it began."""
        lost = not hasattr(report, "harness") and report.failed
        if lost and (planned := self._tests.get(parameters(report.nodeid))):
            cell, check = planned
            report.harness = {"cell": cell.record(), "check": check, "places": []}
        if hasattr(report, "harness"):
            self.reports.append(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Let the session fail if some backend has no test that compared anything, e.g. because all
        its tests were skipped."""
        ran_tests = exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly
        if ran_tests and not _is_xdist_worker(session.config):
            backends = {backend_of(report) for report in self.reports}
            compared = {backend_of(report) for report in self.reports if was_compared(report)}
            if backends != compared or not backends:
                session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write annotations and the step summary for GitHub, if pytest runs in GitHub Actions."""
        if _is_xdist_worker(terminalreporter.config):
            return
        if annotating():
            annotations = [
                github.annotation(title, message, places)
                for title, message, places in failures(self.reports)
            ]
            for text in github.limit(annotations):
                terminalreporter.write_line(text)
        if self.reports and (
            error_text := github.summarise(markdown(self.reports, self._backends))
        ):
            terminalreporter.write_line(shown(error_text))


def _is_xdist_worker(config: pytest.Config) -> bool:
    """Return whether this process is one of pytest-xdist's worker processes, whose reports the main
    process collects."""
    return hasattr(config, "workerinput")


def backend_of(report: Any) -> str:
    """Return the name of the backend to which a test report belongs."""
    return str(report.harness["cell"]["backend"])


def was_compared(report: Any) -> bool:
    """Return whether the check of a report compared something and passed, i.e. it agrees or has
    only known differences."""
    return bool(report.passed or hasattr(report, "wasxfail"))


def markdown(reports: Sequence[Any], order: Sequence[str]) -> str:
    """Return the reports in Markdown: a table with the number of passed checks by spec and backend,
    and a list of failures. ``order`` is the order of the backends."""
    names = set(map(backend_of, reports))
    backends = [*(b for b in order if b in names), *sorted(names.difference(order))]
    rows: dict[str, dict[str, list[Any]]] = {}
    for report in reports:
        row = rows.setdefault(report.harness["cell"]["spec"], {})
        row.setdefault(backend_of(report), []).append(report)
    entries = [
        [spec, *(_format_counts(row.get(b, [])) for b in backends)] for spec, row in rows.items()
    ]
    lines = [f"### harness suite: {_format_counts(reports)}", ""]
    lines += [table(["system", *backends], entries), ""]
    for title, message, _ in failures(reports):
        lines.append(f"- **{escaped(title)}**: {escaped(message)}")
    return "\n".join(lines) + "\n"


def failures(reports: Iterable[Any]) -> list[tuple[str, str, Sequence[str]]]:
    """Return a tuple for each cell with failed checks: a title with the names of these checks, the
    message of the first failure, and places (``file:line``)."""
    cells: dict[str, list[Any]] = {}
    for report in reports:
        if report.failed:
            cells.setdefault(str(Cell(**report.harness["cell"])), []).append(report)
    failed_cells = []
    for cell, failed in cells.items():
        title = f"{cell}: {', '.join(r.harness['check'] for r in failed)}"
        failed_cells.append((title, str(failed[0].longrepr), failed[0].harness["places"]))
    return failed_cells


def _format_counts(reports: Sequence[Any]) -> str:
    counts: Mapping[str, int] = {
        "failed": sum(report.failed for report in reports),
        "passed": sum(report.passed for report in reports),
        "known": sum(hasattr(report, "wasxfail") for report in reports),
        "skipped": sum(report.skipped and not hasattr(report, "wasxfail") for report in reports),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "-"
