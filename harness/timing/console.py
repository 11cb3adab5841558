"""The command ``bench``: its progress bar, output and exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

from rich.console import Console

from harness.environments.columns import skipped_messages
from harness.errors import (
    EXIT_COULD_NOT_RUN,
    EXIT_FAILED,
    EXIT_PASSED,
    HarnessError,
    UsageError,
    did_you_mean,
)
from harness.files.forms import plain
from harness.files.system import usable_cores
from harness.files.user_file import displayed
from harness.language.axes import describe_missing_sizes
from harness.language.model import notes_on
from harness.output.markdown import escaped
from harness.output.printing import console, line, say
from harness.output.progress import Progress
from harness.output.table import Grid, show
from harness.results.speeds import SpeedFile
from harness.runs.changes import RunChanges
from harness.timing import sweep, table
from harness.timing.compare import check_cells, compare, relative_speeds, select_requested
from harness.timing.contestant import BenchEvents, TimedResult
from harness.timing.json_file import check_writable, read, write
from harness.timing.noise import Load, warn_if_busy
from harness.timing.options import BenchOptions
from harness.timing.proofs import PROOFS
from harness.timing.request import BenchRequest, Group
from harness.timing.run import Bench

# The progress steps of a cell besides its rounds: prepare, warm up, read the peak memory, compute
# the speed, and the proofs.
EXTRA_PARTS = 4 + len(PROOFS)


class BenchProgress(BenchEvents):
    """Progress of ``bench``: a bar on a terminal, otherwise a line for each finished cell."""

    def __init__(self, target: Console, rounds: int) -> None:
        self.bar = Progress(target, "timing")
        self._parts = EXTRA_PARTS + rounds
        self._cells, self._ended, self._done = 0, 0, 0

    def planned(self, cells: int) -> None:
        self._cells = cells
        self.bar.plan(cells * self._parts)
        self._count()

    def expecting(self, group: Group) -> None:
        self.bar.doing(f"{group.cell('oracle')}: computing the expected results")

    def doing(self, result: TimedResult, what: str) -> None:
        (self.bar.step if what == "preparing" else self.bar.now)(f"{result.cell}: {what}")
        self._done += 1
        self._count()

    def trying(self, result: TimedResult, path: str) -> None:
        self.bar.now(f"{result.cell}: trying path {path}")

    def ended(self, result: TimedResult) -> None:
        self.bar.once(result.cell.backend, result.record.hello.get("doubts", ()))
        self._ended += 1
        # A cell that lost its speed skips its remaining steps.
        self._done = max(self._done, self._ended * self._parts)
        self._count()
        if result.measured:
            rate = result.record.rate
            text = f"{result.cell}: {rate['median']:,.0f} {rate['unit']} per second"
        else:
            text = f"{result.cell}: {result.status}: {result.reason}"
        if not self.bar.live:
            self.bar.line(f"{self.bar.count()}: {text}")
        elif not result.measured:
            self.bar.line(text)

    def _count(self) -> None:
        self.bar.at(self._done, f"{self._ended}/{self._cells}")


def run_bench(request: BenchRequest, arguments: Sequence[str], options: BenchOptions) -> int:
    """Time all cells of a request, print the results, and return the exit code.

    ``arguments`` is the command line, which is stored in the file of results.
    """
    target, baseline = options.records, options.baseline
    if target is not None:
        check_writable(target)
    old = None
    if baseline is not None:
        old = read(baseline)
        check_cells(old, f"--baseline {displayed(baseline)}")
    reference = options.relative_to
    progress = BenchProgress(console(error=True), request.rounds)
    with Bench(request, events=progress) as bench, progress.bar:
        if reference is not None:
            check_reference(reference, [entry.label for entry in bench.plan.entries])
        specs = {group.spec.name: group.spec for group in bench.plan.every}
        own = {name: spec.model.sizes for name, spec in specs.items()}
        for note in (
            *notes_on(specs.values()),
            *describe_missing_sizes(request.sizes, own, free=()),
        ):
            progress.bar.line(note)
        if request.shard is not None:
            of = f"{len(bench.plan.groups)} of {len(bench.plan.every)} groups"
            progress.bar.line(f"shard {request.shard}: {of}")
        if busy := warn_if_busy(Load.now(), usable_cores()):
            progress.bar.line(busy)
        try:
            results = bench.run()
        except KeyboardInterrupt as interrupt:
            progress.bar.stop()
            interrupt.add_note(
                _save_interrupted(bench, target, arguments, _Printer(options.print_markdown))
            )
            raise
    new = _make_document(bench, arguments)
    show = _Printer(options.print_markdown)
    try:
        if target is not None:
            write(target, new)
    finally:
        # Show the results even if the file could not be written: they may have taken an hour.
        if not options.as_json:
            show.results(results, options.verbose)
            show.lines(skipped_messages(bench.plan.lacking))
            if reference is not None:
                show.lines(relative_lines(new, reference))
    compared = None
    if old is not None:
        old = select_requested(old, new, request.backends)
        compared = compare(old, new, options.threshold)
    if options.as_json:
        since = {} if compared is None else {"since": compared.record()}
        say(json.dumps({**new.plain(), **plain(since)}))
    elif compared is not None:
        show.comparison(compared)
    return results_exit_code(results) or (0 if compared is None else compared.exit_code)


def check_reference(name: str, labels: Sequence[str]) -> None:
    """Raise :class:`UsageError` if ``name``, the backend of ``--relative-to``, is not among the
    timed ``labels``."""
    if name not in labels:
        raise UsageError(
            f"--relative-to {name!r} is not timed{did_you_mean(name, labels)} "
            f"(timed: {', '.join(labels)})"
        )


def relative_lines(content: SpeedFile, reference: str) -> list[str]:
    """Return one line per cell with its speed divided by the speed of the backend ``reference``,
    and one line per backend with the geometric mean of its ratios."""
    ratios = relative_speeds(content, reference)
    if not ratios:
        return [f"no cell has a speed that can be compared with {reference}"]
    texts = [
        f"speeds relative to {reference}, with 95% confidence intervals in brackets",
        *map(str, ratios),
    ]
    for backend in dict.fromkeys(each.backend for each in ratios):
        speeds = [each.speed.value for each in ratios if each.backend == backend]
        if len(speeds) > 1:
            mean = geometric_mean(speeds)
            texts.append(
                f"{backend}: {mean:.2g} times as fast as {reference}, the geometric mean of "
                f"{len(speeds)} cells ({min(speeds):.2g} to {max(speeds):.2g})"
            )
    return texts


def _make_document(bench: Bench, arguments: Sequence[str], planned: int | None = None) -> SpeedFile:
    content = bench.document(planned)
    updates = {"commands": [list(arguments)]}
    return content.model_copy(update={"harness": content.harness.model_copy(update=updates)})


def _save_interrupted(
    bench: Bench, target: Path | None, arguments: Sequence[str], show: _Printer
) -> str:
    """Show the results of an interrupted run, and write them to the file ``target``, if it is not
    None. Return a text that says where the results are."""
    done = bench.results
    if not done:
        return "nothing was measured yet"
    show.results(done, verbose=False)
    planned = len(bench.plan.cells)
    so_far = f"{len(done)} of {planned} cells {'is' if len(done) == 1 else 'are'} done"
    if target is None:
        return f"{so_far}; the results were not saved (--records FILE saves them)"
    try:
        write(target, _make_document(bench, arguments, planned))
    except HarnessError as error:
        return f"{so_far}; {error}"
    return f"{so_far}; the results are in {displayed(target)}"


def results_exit_code(results: Sequence[TimedResult]) -> int:
    """Return 0 if every cell has a speed, 1 if a cell was refused, 3 if a cell could not be run.

    Unsupported cells are ignored, unless all cells are unsupported.
    """
    statuses = {result.status for result in results}
    if "broken" in statuses or not statuses & {"measured", "refused"}:
        return EXIT_COULD_NOT_RUN
    return EXIT_FAILED if "refused" in statuses else EXIT_PASSED


class _Printer:
    def __init__(self, markdown: bool) -> None:
        self.markdown = markdown
        self.console = console()

    def results(self, results: Sequence[TimedResult], verbose: bool) -> None:
        grids, notes = table.make_tables(results)
        for grid in [*grids, *([table.make_details_table(results)] if verbose else [])]:
            self.grid(grid)
        self.lines([f"[{number}] {note}" for number, note in enumerate(notes, start=1)])
        if verbose:
            self.lines(table.list_tracebacks(results))
        elif any(result.traceback for result in results):
            self.lines(["--verbose shows the traceback"])
        self.lines(
            [
                "Speeds are in thousand characters per second (samples, if a model reads no "
                "characters), ± half the interquartile range. Below: the path, with the number of "
                "steps per call (e.g. x8), and the digits in which the worst tensor agrees with "
                "the oracle (in training also parameter updates). *: the fastest reliable speed, "
                "or equal to it within the noise",
                *sweep.slope_lines(sweep.fit_slopes(results)),
                *sweep.describe_tunings(sweep.compare_tunings(results)),
            ]
        )

    def comparison(self, changes: RunChanges) -> None:
        if self.markdown:
            say(changes.markdown())
        else:
            self.lines(changes.lines())

    def grid(self, grid: Grid) -> None:
        if self.markdown:
            say(grid.markdown(), end="\n\n")
        else:
            show(self.console, grid)

    def lines(self, lines: Sequence[str]) -> None:
        """Print plain lines; in Markdown print a list with an item per line."""
        for text in lines:
            if self.markdown:
                say(f"- {escaped(text)}")
            else:
                line(self.console, text)
