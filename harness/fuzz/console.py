"""The command ``harness fuzz``: it runs the search, shows the progress, and prints the faults."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rich.console import Console

from harness.checking.known_differences import known_differences
from harness.checking.reproducer import check_writable
from harness.command.outcome import CommandResult
from harness.command.shared import check_resume
from harness.environments.columns import (
    Columns,
    choose_from_options,
    column_variables,
    skipped_messages,
)
from harness.errors import EXIT_FAILED, EXIT_PASSED, check_known
from harness.files import kinds
from harness.fuzz.calls import definitions, optimizers
from harness.fuzz.cases import draw_case
from harness.fuzz.compare import CaseRunner
from harness.fuzz.options import FuzzOptions
from harness.fuzz.record import CaseLine, Fault, FuzzRun, read_lines
from harness.fuzz.run import FuzzSearch, numbers
from harness.output.printing import console, line
from harness.output.progress import Progress
from harness.results.file import RecordWriter
from harness.results.records import Records
from harness.runtime import plugins
from harness.runtime.labels import backend_of
from harness.runtime.paths import COMPILED_PATHS, KNOWN_DTYPES, PATHS
from harness.worker.launch import Launch, thread_settings
from harness.worker.worker import Worker

# The number of new objects after which Python's garbage collector runs. Each case creates many
# objects and few reference cycles; with Python's default, the collector took a sixth of the time.
COLLECTED_AT = 50_000


def run_fuzz(options: FuzzOptions) -> CommandResult:
    """Run the command ``harness fuzz``.

    Raises:
        UsageError: an option is wrong, or the file to resume is of a run with other options.
        CouldNotRun: a backend does not start.
    """
    for dtype in options.dtypes:
        check_known("dtype", dtype, KNOWN_DTYPES)
    check_known("path", options.path, (*PATHS, *COMPILED_PATHS))
    check_resume(options.records, options.resume)
    if options.reproducers is not None:
        check_writable(options.reproducers)
    run = FuzzRun(
        seed=options.seed, dtypes=options.dtypes, path=options.path, device=options.device
    )
    earlier = Records(())
    if options.records is not None and options.resume:
        earlier = read_lines(options.records, run)
    columns = choose_from_options(options.backends, options.pythons)
    with ExitStack() as stack:
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(COLLECTED_AT)
        searches = _start(options, columns, stack)
        writer = None
        if options.records is not None:
            writer = stack.enter_context(RecordWriter(options.records, kinds.FUZZED))
            if not earlier.lines:
                writer.append(run)
        bar = stack.enter_context(Progress(console(error=True), "fuzzing"))
        for message in skipped_messages(columns.lacking):
            bar.line(message)
        lines = _search(options, searches, earlier, writer, bar)
    faults = [fault for search in searches for fault in search.faults.values()]
    counts = {identity: n for search in searches for identity, n in search.counts.items()}
    record = _record(lines, faults, counts)
    code = EXIT_FAILED if any(not fault.known for fault in faults) else EXIT_PASSED
    return CommandResult({"exit_code": code, **record}, lambda out: _print(out, record), code)


def _start(options: FuzzOptions, columns: Columns, stack: ExitStack) -> list[FuzzSearch]:
    """Start the workers of all backends, and return their searches."""
    environment = column_variables(options.backends, options.environment)
    known = known_differences(options.folders)
    searches = []
    for name in columns.names:
        python = columns.pythons.get(name, sys.executable)
        launch = Launch(name, python, environment.get(name, {}))
        for setting in (launch, *_other_settings(launch, options)):
            worker = stack.enter_context(Worker(setting))
            runner = CaseRunner(worker, options.device, options.path, options.timeout)
            searches.append(FuzzSearch(runner, known, options.reproducers))
            searches[-1].start()
    return searches


def _other_settings(launch: Launch, options: FuzzOptions) -> Iterator[Launch]:
    """Yield the settings with which a backend also runs each case: numbers of threads, and
    instruction sets. Each has its own label, e.g. ``torch@avx2``."""
    settings: dict[str, tuple[int | None, Mapping[str, str]]] = {
        f"threads-{count}": (count, thread_settings(count)) for count in options.threads
    }
    if options.instruction_sets:
        sets = plugins.instruction_sets(backend_of(launch.backend))
        settings |= {name: (None, variables) for name, variables in sets.items()}
    mark = "-" if "@" in launch.backend else "@"
    for label, (cores, variables) in settings.items():
        yield replace(
            launch,
            backend=f"{launch.backend}{mark}{label}",
            environment={**variables, **launch.environment},
            cores=cores,
        )


def _search(
    options: FuzzOptions,
    searches: Sequence[FuzzSearch],
    earlier: Records,
    writer: RecordWriter | None,
    bar: Progress,
) -> list[CaseLine]:
    """Run the cases, and return their outcomes, including those of an earlier run."""
    lines = earlier.of_kind(CaseLine)
    done = {(case.backend, case.number) for case in lines}
    for search in searches:
        for fault in earlier.of_kind(Fault):
            if fault.backend == search.backend:
                search.faults[fault.identity] = fault
        for case in lines:
            if case.backend == search.backend:
                search.counts.update(case.faults)
    bar.plan(options.cases or 60 * options.minutes, forecast=False)
    for number in numbers(options.cases, options.minutes):
        pending = [s for s in searches if (s.backend, number) not in done]
        if not pending:
            continue
        drawn = draw_case(options.seed, number, options.dtypes)
        for search in pending:
            bar.now(f"case {number} on {search.backend}")
            before = len(search.faults)
            outcome = search.run(*drawn)
            lines.append(outcome)
            new = [*search.faults.values()][before:]
            for fault in new:
                bar.line(_describe(fault.plain()))
            if writer is not None:
                writer.append(*new, outcome, durable=bool(new))
        bar.at(number + 1 if options.cases else bar.done, f"{number + 1} cases")
    return lines


def _record(
    lines: Sequence[CaseLine], faults: Sequence[Fault], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return the result as the dictionary that ``--json`` prints: the coverage and the faults."""
    backends: dict[str, dict[str, int]] = {}
    for case in lines:
        tally = backends.setdefault(case.backend, {"agree": 0, "differ": 0, "unsupported": 0})
        tally[case.outcome] += 1
    tried = Counter(name for case in lines for name in case.functions)
    return {
        "backends": backends,
        "definitions": {n: tried.pop(n, 0) for n in (*definitions(), *optimizers())},
        "functions": dict(sorted(tried.items())),
        "dtypes": dict(Counter(case.dtype for case in lines)),
        "values": dict(Counter(case.values for case in lines)),
        "faults": [
            {**f.plain(), "identity": f.identity, "cases": counts.get(f.identity, 1)}
            for f in faults
        ],
    }


def _describe(fault: Mapping[str, Any]) -> str:
    """Return a fault as a line."""
    words = f"{fault['backend']}: {', '.join(fault['functions'])}"
    words += f" ({fault['values']} values, {fault['dtype']}, {fault['check']}, {fault['mode']})"
    return f"{words}: {fault.get('known') or fault['detail']}"


def _print(out: Console, record: Mapping[str, Any]) -> None:
    for fault in record["faults"]:
        line(out, _describe(fault), "bold" if not fault.get("known") else "")
        model = [t.strip() for t in fault["model"].splitlines()[3:]]
        line(out, f"  {'; '.join(t for t in model if t)}")
        line(
            out,
            f"  batch {fault['batch']}, time {fault['time']}; case {fault['number']}, and "
            f"{fault['cases'] - 1} more",
        )
        if fault.get("folder"):
            line(out, f"  reproducer: {fault['folder']}")
    for backend, tally in record["backends"].items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.items() if count)
        line(out, f"{backend}: {counts}")
    tried = sum(1 for count in record["definitions"].values() if count)
    dtypes = ", ".join(f"{name} {count}" for name, count in record["dtypes"].items())
    line(
        out,
        f"tried: {len(record['functions'])} functions and operators, {tried} of "
        f"{len(record['definitions'])} layers, losses and optimizers; cases by dtype: {dtypes}",
    )
    new = [fault for fault in record["faults"] if not fault.get("known")]
    line(out, f"new faults: {len(new)}; known differences: {len(record['faults']) - len(new)}")
