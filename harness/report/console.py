"""Makes a report and says where it is."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, did_you_mean
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.user_file import FileFault, displayed, why
from harness.report.history import history
from harness.report.inputs import Inputs, gather
from harness.report.junit import junit
from harness.report.markdown import markdown
from harness.report.page import page
from harness.terminal import tell

if TYPE_CHECKING:
    from harness.check.known_differences import Differences
    from harness.report.news import News

KINDS: Mapping[str, kinds.FileKind] = {
    ".html": kinds.PAGE,
    ".htm": kinds.PAGE,
    ".md": kinds.MARKDOWN,
    ".xml": kinds.JUNIT,
}


def run_report(files: Sequence[Path], options: Mapping[str, Any]) -> int:
    """Make a report of some files; returns the exit code.

    Raises:
        UsageError: a file is of a kind that no report is made of, or nothing can be written.
        HarnessError: a file cannot be read.
    """
    output: Path = options["output"]
    check_output(output)
    if options["relative_to"] is not None:
        _check_baseline(options["relative_to"], files)
    _write_all(files, [output], options)
    tell(f"the report is in {displayed(output)}")
    return 0


def _check_baseline(name: str, files: Sequence[Path]) -> None:
    """:class:`UsageError` for a backend that no file has a speed of."""
    from harness.bench.console import check_reference

    benches = gather(files).benches
    if not benches:
        raise UsageError("--relative-to is about speeds: give results of 'harness bench'")
    timed = {speed.params.backend for run in benches for speed in run.file.benchmarks}
    check_reference(name, sorted(timed))


def check_output(output: Path) -> None:
    """:class:`UsageError` now, and not after a run, where a report cannot be written."""
    if output.suffix.lower() not in KINDS:
        hint = did_you_mean(output.suffix.lower(), KINDS)
        raise UsageError(
            f"{displayed(output)}: a report is a file that ends in {', '.join(KINDS)}{hint}"
        )
    try:
        kinds.check_place(output, KINDS[output.suffix.lower()])
    except FileFault as fault:
        raise UsageError(f"cannot write {fault}") from None


def write_of(files: Sequence[Path], outputs: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Write several reports of the same files.

    Raises:
        UsageError: one cannot be written, or a base or the history is none.
        HarnessError: a file cannot be read.
    """
    _write_all(files, outputs, options)
    for output in outputs:
        tell(f"the report is in {displayed(output)}", error=True)


def _write_all(files: Sequence[Path], outputs: Sequence[Path], options: Mapping[str, Any]) -> None:
    with _nothing_collected():
        inputs, bases = gather(files), options.get("bases")
        against = _news(inputs, bases) if bases else None
        for output in outputs:
            _write(output, inputs, against, options)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """What is read lives until it is written: looking for garbage takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _news(inputs: Inputs, bases: Sequence[Path]) -> News | None:
    # It imports all checks, for their names.
    from harness.report.news import news

    return news(inputs, gather(bases))


def _known(inputs: Inputs, folders: Sequence[Path]) -> Differences | None:
    """The known differences, where the run has met any: what reads them imports much."""
    cells = inputs.check.cells.values() if inputs.check else ()
    if not any(f.verdict == "known-difference" for cell in cells for f in cell.findings):
        return None
    from harness.check.known_differences import known_differences

    return known_differences(folders)


def _write(output: Path, inputs: Inputs, against: News | None, options: Mapping[str, Any]) -> None:
    """Write one report, in the form that its name says."""
    suffix = output.suffix.lower()
    if suffix == ".xml":
        if inputs.check is None:
            raise UsageError("JUnit's form is of checks: give a file of 'check --records'")
        text = junit(inputs.check)
    elif suffix == ".md":
        text = markdown(inputs, against, options.get("relative_to"))
    else:
        folder = options.get("history")
        differences = _known(inputs, options.get("folders") or ())
        past = history(folder) if folder is not None else None
        text = page(inputs, against, past, options.get("relative_to"), differences)
    try:
        write_whole(output, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"cannot write {displayed(output)}: {why(error)}") from None
