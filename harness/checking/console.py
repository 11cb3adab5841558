"""The command ``harness check``: progress while the checks run, and tables and text at their
end."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.checking import report as reports
from harness.checking.changes import (
    ONLY_WHERE_WRONG,
    Cells,
    compare_conditions,
    find_changes,
    moved_digits,
)
from harness.checking.checks import FINDINGS
from harness.checking.engine import Engine
from harness.checking.history import rerun_command
from harness.checking.options import CheckOptions
from harness.checking.pairs import describe_pairs, read_pairs
from harness.checking.reproducer import check_writable, find_first_check, save
from harness.checking.request import Request, choose_checks, describe_arrays
from harness.checking.runner import CheckEvents, Report
from harness.environments.columns import skipped_messages
from harness.errors import EXIT_COULD_NOT_RUN, EXIT_FAILED, EXIT_PASSED, UsageError
from harness.files import forms
from harness.files.user_file import displayed
from harness.oracle.time_limit import OracleFault
from harness.output.github import summarise
from harness.output.printing import annotate, annotating, console, line, say
from harness.output.progress import Progress
from harness.output.shell import command_line, quoted
from harness.output.table import show
from harness.results.cell import Cell, CellResult
from harness.results.environment import machine_identity
from harness.results.file import read_records
from harness.results.findings import PASSING, Finding
from harness.results.lines import Head, results_of
from harness.results.records import Records
from harness.runs.changes import RunChanges

# Comparison of a run of checks with an earlier record file: ``check --baseline``.


class Baseline:
    """The earlier run of ``harness check`` that ``check --baseline`` compares with.

    Its record file is read before the new run begins, because the new run may append to the same
    file.
    """

    def __init__(self, path: Path, patterns: Sequence[str] = ()) -> None:
        """Read the earlier run from its record file.

        ``patterns`` are the specs that the new run requests. If a spec has been deleted since the
        earlier run, and a pattern matches its name, the cells of this spec count as lost.

        Raises:
            UsageError: the file has no finished cell, or a cell ran on several machines, but not on
                this machine.
            RecordError: the file cannot be read.
        """
        self.name = displayed(path)
        self.patterns = patterns
        self.records: Records = read_records(path)
        self.cells = self.records.of_machine(machine_identity(), f"--baseline {self.name}")
        if not self.cells:
            raise UsageError(f"--baseline {self.name} has no finished cell")

    def compare(self, engine: Engine, report: Report, head: Head) -> RunChanges:
        """Return the changes since the earlier run. A missing cell counts as lost only if the new
        run requested the cell. ``head`` is the first line of the new run's records."""
        new = {result.cell: engine.add_signature(result) for result in report.results}
        # After a stop by --fail-fast, cells that did not start do not count as lost.
        not_started = set(engine.cells()) - new.keys() if engine.request.fail_fast else ()
        old = {
            cell: result
            for cell, result in self._select_cells(engine).items()
            if cell not in not_started
        }
        conditions = compare_conditions(self.records.head, old, head, new)
        pairs = read_pairs(self.records), report.pairs
        moved = moved_digits(old, new, pairs)
        return RunChanges(conditions, find_changes(old, new), f"since {self.name}", moved=moved)

    def _select_cells(self, engine: Engine) -> Cells:
        """Return those cells of the earlier run that the new request covers, with only the
        requested checks. A request without backends covers all backends, and a request without
        specs covers all specs. A pattern covers every spec that it matches, including deleted
        specs."""
        request = engine.request
        checks = choose_checks(request.checks, request.thorough)
        other_shards = {*engine.whole_plan()} - {*engine.cells()}  # cells of other shards
        return {
            cell: _select_checks(result, checks)
            for cell, result in self.cells.items()
            if cell not in other_shards
            and (not request.backends or cell.backend in engine.backends)
            and (
                not request.specs
                or cell.spec in engine.specs.names
                or any(fnmatch.fnmatch(cell.spec, pattern) for pattern in self.patterns)
            )
            and cell.dtype in request.dtypes
            and cell.path in request.paths
            and cell.device == request.device
        }


def combine_exit_codes(compared: RunChanges, exit_code: int) -> int:
    """Return the exit code of a run that was compared with an earlier run.

    ``exit_code`` is the exit code without the comparison. The result is 1 if something is worse
    than in the earlier run, otherwise 0. So a failure that was already in the earlier run does not
    count. Code 3 stays 3, because a backend that could not run cannot be compared.
    """
    if compared.exit_code:
        return exit_code or EXIT_FAILED
    return exit_code if exit_code == EXIT_COULD_NOT_RUN else EXIT_PASSED


def _select_checks(result: CellResult, checks: tuple[str, ...]) -> CellResult:
    findings = [
        f
        for f in result.findings
        if FINDINGS.get(f.check, f.check) in checks or f.check in ONLY_WHERE_WRONG
    ]
    return replace(result, findings=findings)


# A function that writes additional files into the folder of a cell's reproducer, and returns lines
# of text about these files.
WriteFiles = Callable[[Path, CellResult], list[str]]


def run_check(
    request: Request,
    arguments: Sequence[str],
    options: CheckOptions,
    write_files: WriteFiles = lambda folder, result: [],
) -> int:
    """Run the requested checks, print the results and return the exit code.

    ``options`` selects the output, and the files to write in addition to the records.
    ``options.specs`` are the models as the user wrote them: names, files and patterns.
    ``write_files`` writes additional files into the folders of reproducers.

    Raises:
        UsageError: none of the selected checks applies to the specs.
    """
    progress = CheckProgress(console(error=True))
    with Engine(request, progress) as engine, progress.bar:
        for note in (*engine.specs.notes, *engine.applied):
            progress.bar.line(note)
        baseline = (
            Baseline(options.baseline, options.specs) if options.baseline is not None else None
        )
        if request.shard is not None:
            part = f"{len(engine.cells())} of {len(engine.whole_plan())} cells"
            progress.bar.line(f"shard {request.shard}: {part}")
        if options.reproducers is not None:
            check_writable(options.reproducers)
        report = engine.run(arguments)
        compared = baseline.compare(engine, report, engine.head) if baseline is not None else None
        reproducers = _write_reproducers(engine, report, options.reproducers, write_files)
    if report.results and not any(r.findings for r in report.results):
        spec_names = ", ".join(dict.fromkeys(r.cell.spec for r in report.results))
        raise UsageError(f"none of the selected checks applies to {spec_names}")
    if error_text := summarise(reports.markdown(report, compared)):
        say(error_text, error=True)
    for text in reports.annotate_failures(report, engine.specs, compared) if annotating() else ():
        annotate(text)
    code = report.exit_code if compared is None else combine_exit_codes(compared, report.exit_code)
    if options.as_json:
        data = results_data(code, request, report, compared)
        if engine.specs.notes:
            data["notes"] = engine.specs.notes
        say(json.dumps(forms.plain(data)))
        return code
    target = console()
    show(target, *reports.make_tables(report))
    for text in _compose_lines(engine, report, compared, reproducers, options):
        line(target, text)
    return code


def _compose_lines(
    engine: Engine,
    report: Report,
    compared: RunChanges | None,
    reproducers: Sequence[str],
    options: CheckOptions,
) -> list[str]:
    """Return the lines to print after the tables: agreement between backends, problems,
    reproducers, the summary, and changes since the baseline. ``compared`` has these changes, or is
    None."""
    lines = reports.describe_given_arrays(engine.request, engine.specs)
    lines += reports.count_reused_cells(report)
    lines += describe_pairs(report.pairs, report.results, every=options.pairs)
    # If a backend does not support a primitive, a dtype or a device, report this once for all
    # cells.
    unsupported = (
        f"{result.cell.backend}: unsupported: {finding.detail}"
        for result in report.results
        for finding in result.findings
        if finding.verdict == "unsupported"
    )
    lines += [
        *reports.list_known_differences(report),
        *reports.find_outliers(report),
        *dict.fromkeys(unsupported),
    ]
    lines += [*reports.describe_not_applicable(report), *skipped_messages(report.lacking)]
    problem_lines = reports.describe_problems(report, most=None if options.verbose else 2)
    lines += problem_lines if options.verbose else reports.first_lines(problem_lines, 40)
    lines += reproducers
    if options.verbose:
        lines += reports.describe_details(report)
    if engine.cases.proofs:
        lines.append(reports.describe_proof(engine.cases.proofs))
    lines.append(reports.summarise(report))
    if compared is not None:
        lines += compared.lines()
    return lines


def results_data(
    code: int, request: Request, report: Report, compared: RunChanges | None = None
) -> dict[str, object]:
    """Return the results of ``harness check`` as the dictionary that ``--json`` prints. ``code`` is
    the exit code. ``compared`` has the changes since a baseline, or is None."""
    arrays = {} if request.given is None else {"given": describe_arrays(request.given).plain()}
    changes = {} if compared is None else {"since": compared.record()}
    return {
        "exit_code": code,
        **arrays,
        "results": [line.plain() for result in report.results for line in results_of(result)],
        "pairs": [pair.plain() for pair in report.pairs],
        **({"left_out": report.left_out} if report.left_out else {}),
        "not_installed": dict(report.lacking),
        "not_compared": [
            {**r.cell.record(), "what": list(r.not_compared)}
            for r in report.results
            if r.not_compared
        ],
        "causes": [
            {**r.cell.record(), "location": r.location, "layers": list(r.wrong_layers)}
            for r in report.results
            if r.location
        ],
        "kept": [{**r.cell.record(), "since": r.since} for r in report.results if r.kept],
        **changes,
    }


def _write_reproducers(
    engine: Engine, report: Report, folder: Path | None, write_files: WriteFiles
) -> list[str]:
    """Write a reproducer for each differing cell. Return one line per cell, with the command that
    runs the reproducer or the cell again."""
    lines: list[str] = []
    if folder is None:
        return lines
    for result in report.results:
        cell = result.cell
        if engine.is_own_model(cell.backend):  # a reproducer would have the program, not the model
            continue
        differing = [f.check for f in result.findings if f.verdict == "differ"]
        check = find_first_check(result.findings)
        if check is not None:
            try:
                case = engine.case(engine.specs[cell.spec], own=False)
                path = save(folder, cell, case, check)
                lines.append(f"reproducer: harness replay {quoted(str(path))}")
                lines += write_files(path, result)
            except (
                UsageError,
                OracleFault,
            ) as error:  # still report the results of the run
                lines.append(f"no reproducer written for {cell}: {error}")
        elif differing:
            command = command_line(rerun_command(cell, engine.head, differing))
            lines.append(
                f"no reproducer for a difference in {', '.join(differing)}; instead run {command}"
            )
    return lines


# The progress of the checks, printed on standard error.

# The progress bar counts an unfinished cell as at most this share of a finished cell.
NEARLY = 0.95
# A run with fewer cells has no forecast of its end, because the durations of cells differ too much.
FEW = 10


class CheckProgress(CheckEvents):
    """The progress display of ``harness check``: a bar on a terminal, otherwise a line for each
    cell."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(console, "checking")
        self._started: set[str] = set()
        self._cells, self._ended = 0, 0
        self._finding_counts: dict[Cell, int] = {}

    def planned(self, cells: Sequence[Cell]) -> None:
        self._cells = len(cells)
        self.bar.plan(self._cells, forecast=self._cells >= FEW)
        self._count()

    def rerunning(self, reasons: Sequence[str]) -> None:
        for reason in reasons:
            self.bar.line(reason)

    def began(self, cell: Cell) -> None:
        self._finding_counts[cell] = 0
        self.bar.doing(str(cell))

    def starting(self, backend: str, seconds: float) -> None:
        text = f"starting {backend} (limit: {seconds:g} s)"
        (self.bar.doing if backend in self._started else self.bar.step)(text)
        self._started.add(backend)

    def stage_began(self, cell: Cell, stage: str) -> None:
        self.bar.now(f"{cell}: {stage}")

    def finding_added(self, cell: Cell, finding: Finding) -> None:
        self._finding_counts[cell] = self._finding_counts.get(cell, 0) + 1
        self._count()

    def ended(self, result: CellResult) -> None:
        self.bar.once(result.cell.backend, result.doubts)
        self._finding_counts.pop(result.cell, None)
        self._ended += 1
        if result.kept:
            # The forecast ignores reused cells, because they take no time.
            self.bar.plan(self._cells, self._ended, forecast=self._cells >= FEW)
        self._count()
        fails = result.verdict not in PASSING
        if fails or not self.bar.live:
            count = "" if self.bar.live else f"{self.bar.count()}: "
            self.bar.line(f"{count}{result.cell}: {result.verdict} ({result.seconds:.1f} s)")

    def _count(self) -> None:
        begun = sum(min(n / len(FINDINGS), NEARLY) for n in self._finding_counts.values())
        self.bar.at(self._ended + begun, f"{self._ended}/{self._cells}")
