"""The command ``report``, which writes a report and prints its path."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command.outcome import CommandResult
from harness.errors import UsageError
from harness.files import kinds
from harness.files.user_file import displayed
from harness.output.printing import tell
from harness.report.history import history
from harness.report.inputs import Inputs, read_inputs
from harness.report.junit import junit
from harness.report.markdown import markdown
from harness.report.options import ReportOptions
from harness.report.page import page, prepare_page

if TYPE_CHECKING:
    from harness.checking.known_differences import Differences
    from harness.report.changes import News

# The kind of file of each format, and the format for each file suffix.
KINDS: Mapping[str, kinds.FileKind] = {
    "html": kinds.PAGE,
    "markdown": kinds.MARKDOWN,
    "junit": kinds.JUNIT,
}
ENDINGS: Mapping[str, str] = {
    ending: form for form, kind in KINDS.items() for ending in kind.endings
}


def run_report(options: ReportOptions) -> CommandResult:
    """Write a report that shows the files that the options name.

    Raises:
        UsageError: a report cannot show a file of this kind, or the output cannot be written.
        HarnessError: a file cannot be read.
    """
    output = options.output
    form = _find_format(output)
    check_output(output, form)
    with _paused_collection():
        inputs = read_inputs(options.files)
        if options.relative_to is not None:
            _check_baseline(options.relative_to, inputs)
        _check_format(form, inputs, options)
        _write_all(inputs, {form: output}, options)
    data = {"output": os.fspath(output), "form": form}
    return CommandResult(data, f"the report is in {displayed(output)}")


def _find_format(output: Path) -> str:
    """Return the format of a report, e.g. ``html``, from the suffix of its file name; raise
    :class:`UsageError` for an unknown suffix."""
    try:
        return ENDINGS[output.suffix.lower()]
    except KeyError:
        *others, last = ENDINGS
        raise UsageError(
            f"{displayed(output)}: unknown format; use a name that ends in "
            f"{', '.join(others)} or {last}"
        ) from None


def _check_format(form: str, inputs: Inputs, options: ReportOptions) -> None:
    """Raise :class:`UsageError` if the output format ``form``, e.g. ``junit``, cannot show one of
    the options or input files."""
    if form != "html" and options.history is not None:
        raise UsageError(
            "only an HTML report can show --history: choose an --output that ends in .html, or "
            "omit --history"
        )
    if form != "junit":
        return
    if options.bases:
        raise UsageError(
            "a JUnit report cannot show changes since --base: choose an --output that ends in "
            ".html or .md, or omit --base"
        )
    strays = ", ".join([run.name for run in inputs.benches] + [t.name for t in inputs.trainings])
    if strays:
        raise UsageError(
            "a JUnit report can show only checks: give a file of 'check --records' and omit "
            f"{strays}, or choose an --output that ends in .html or .md"
        )


def _check_baseline(name: str, inputs: Inputs) -> None:
    """Raise :class:`UsageError` if no input file has a speed of the backend ``name``. The report
    divides all speeds by the speed of this backend."""
    from harness.timing.console import check_reference

    if not inputs.benches:
        raise UsageError("--relative-to needs speeds: give results of 'harness bench'")
    timed = {speed.params.backend for run in inputs.benches for speed in run.file.benchmarks}
    check_reference(name, sorted(timed))


def check_output(output: Path, form: str) -> None:
    """Raise :class:`UsageError` if a report in the format ``form`` cannot be made, or cannot be
    written to ``output``. This is checked before a run, so that no long run is wasted."""
    try:
        kinds.check_output(output, KINDS[form])
        if form == "html":
            prepare_page()
    except ImportError as error:
        raise UsageError(
            f"cannot write {displayed(output)}: matplotlib is installed but cannot be imported "
            f"({error}); repair it, or uninstall it to get a page without plots"
        ) from None


def check_outputs(outputs: Mapping[str, Path], results: Path | None) -> None:
    """Check before a run that its reports can be written. ``outputs`` maps a format, e.g. ``html``,
    to the file to write. ``results`` is the file with the results of the run.

    Raises:
        UsageError: a report cannot be written, its file suffix belongs to another format, or two
            options name the same file.
    """
    places = {} if results is None else {os.path.realpath(results): "--records"}
    for form, output in outputs.items():
        option, named = f"--{form}", ENDINGS.get(output.suffix.lower(), form)
        if named != form:
            raise UsageError(
                f"{option} {displayed(output)}: a name that ends in {output.suffix} is for "
                f"--{named}; choose another name, or use --{named}"
            )
        before = places.setdefault(os.path.realpath(output), option)
        if before != option:
            raise UsageError(
                f"{before} and {option} both name {displayed(output)}: give each its own file"
            )
        check_output(output, form)


def write_reports(files: Sequence[Path], outputs: Mapping[str, Path], options: object) -> None:
    """Write the reports of a run: one output file per format. Each report shows all input
    ``files``.

    ``outputs`` maps a format, e.g. ``html``, to the file to write. ``options`` are the options of
    the run.

    Raises:
        UsageError: a report cannot be written, or the older files to compare with are invalid.
        HarnessError: a file cannot be read.
    """
    with _paused_collection():
        _write_all(read_inputs(files), outputs, options)
    for output in outputs.values():
        tell(f"the report is in {displayed(output)}", error=True)


def _write_all(inputs: Inputs, outputs: Mapping[str, Path], options: object) -> None:
    # A run is compared with at most one older file, a report with any number of files.
    base = getattr(options, "baseline", None)
    bases = getattr(options, "bases", (base,) if base is not None else ())
    against = None
    if bases:
        from harness.report.changes import (
            news,  # slow import: it imports all checks, for their names
        )

        against = news(inputs, read_inputs(bases, "--base"))
    for form, output in outputs.items():
        _write(output, form, inputs, against, options)


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause Python's garbage collection while a report is written. Otherwise the collection would
    take a third of the time that the report takes, and free no memory."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _load_differences(inputs: Inputs, folders: Sequence[Path]) -> Differences | None:
    """Return the known differences, as read from ``known_differences.yaml`` in ``folders``. If no
    cell of the run has a known difference, return None: the module that reads the file is slow to
    import."""
    cells = inputs.check.cells.values() if inputs.check else ()
    if not any(f.verdict == "known-difference" for cell in cells for f in cell.findings):
        return None
    from harness.checking.known_differences import known_differences

    return known_differences(folders)


def _write(output: Path, form: str, inputs: Inputs, against: News | None, options: object) -> None:
    relative_to = getattr(options, "relative_to", None)
    if form == "junit":
        assert inputs.check is not None
        text = junit(inputs.check)
    elif form == "markdown":
        text = markdown(inputs, against, relative_to)
    else:
        folder = getattr(options, "history", None)
        differences = _load_differences(inputs, getattr(options, "folders", ()))
        past = history(folder) if folder is not None else None
        text = page(inputs, against, past, relative_to, differences)
    kinds.write_output(output, text.encode("utf-8", "replace"))
