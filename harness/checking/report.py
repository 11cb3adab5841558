"""The printed report of a run: a table with a row for each spec and a column for each backend, and
texts about differences and problems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import indent

from rich.text import Text

from harness.checking.changes import CellChange
from harness.checking.checks import AT_GIVEN, CHECKS
from harness.checking.history import count_by_day
from harness.checking.pairs import Group, describe_pairs, find_outlier, group_of
from harness.checking.request import Request, describe_arrays
from harness.checking.runner import Report
from harness.errors import several
from harness.files.forms import KeyPath
from harness.files.user_file import displayed
from harness.language.model import ModelCollection
from harness.output import github
from harness.output.markdown import escaped, sentences, table
from harness.output.printing import entry
from harness.output.table import Grid
from harness.results.cell import CellResult, not_compared
from harness.results.findings import MARKS, PASSING, Finding, digits
from harness.runs.changes import RunChanges

STYLES: Mapping[str, str] = {
    "agree": "green",
    "float32-precision": "cyan",
    "known-difference": "cyan",
    "unsupported": "dim",
    "not-applicable": "dim",
}


def cell_text(result: CellResult) -> str:
    """Return a cell's entry in the table: the number of digits that agree (``15.6``), with the
    verdict if the cell does not agree (``DIFFER 2.1``)."""
    number = digits(result.findings)
    digits_text = "" if number is None else f"{number:.1f}"
    return f"{MARKS[result.verdict]} {digits_text}".strip()


class ResultTable:
    """The results of a command as a table with a row for each spec and a column for each backend.

    ``variants`` has the labels of all combinations of dtype and path. ``rows`` maps a spec to a
    list with one item per backend. The item is a list with one result (or None) for each variant.
    ``title`` explains the numbers in the table.
    """

    def __init__(self, results: Sequence[CellResult]) -> None:
        variants = dict.fromkeys((r.cell.dtype, r.cell.path) for r in results)
        one_path = len({path for _, path in variants}) == 1
        self.variants = [dtype if one_path else f"{dtype} {path}" for dtype, path in variants]
        self.title = f"digits of agreement with the oracle: {' | '.join(self.variants)}"
        backends = dict.fromkeys(r.cell.backend for r in results)
        self.columns = ["system", *backends]
        by_cell = {(r.cell.spec, r.cell.backend, (r.cell.dtype, r.cell.path)): r for r in results}
        self.rows = {
            spec: [[by_cell.get((spec, b, variant)) for variant in variants] for b in backends]
            for spec in dict.fromkeys(r.cell.spec for r in results)
        }


def make_tables(report: Report) -> tuple[Grid, Grid]:
    """Return the table of results in two layouts. The wide layout has a row for each spec. The
    narrow layout has a row for each spec, dtype and path."""
    results = ResultTable(report.results)
    wide = Grid(results.title, results.columns, ruled=True)
    narrow = Grid(results.title, ["system", "", *results.columns[1:]], names=2)
    for spec, row in results.rows.items():
        texts = [[_format_entry(result) for result in of_backend] for of_backend in row]
        wide.rows.append(
            [spec, *(Text(" | ").join(texts_of_backend) for texts_of_backend in texts)]
        )
        labelled = zip(results.variants, *texts, strict=True)
        narrow.rows += [[spec, *entries] for entries in labelled]
    return wide, narrow


def _format_entry(result: CellResult | None) -> Text:
    if result is None:
        return Text("-")
    return entry(cell_text(result), STYLES.get(result.verdict, "bold red"))


def describe_problems(report: Report, most: int | None = 2) -> list[str]:
    """Return lines about each cell that does not pass: the first difference, which code is at
    fault, and the failing checks. The first ``most`` failing checks of a cell (None: all) are shown
    in full. The other failing checks are only named."""
    lines = []
    for result in report.results:
        failing = [f for f in result.findings if f.verdict not in PASSING]
        if not failing:
            continue
        lines.append(f"{result.cell}: {result.verdict}")
        if result.location:
            lines.append(f"  {result.location}")
        if result.blame:
            lines.append(f"  {result.blame}")
        ran = [f for f in failing if f.verdict != "not-run"]
        for finding in ran[:most]:
            lines += _indent_lines(f"{finding.check}: {finding.verdict}: {finding.detail}", "  ")
        if ran[len(ran[:most]) :]:
            others = ", ".join(f.check for f in ran[len(ran[:most]) :])
            lines.append(f"  also failed: {others} (details: --verbose)")
        if most is not None and any(f.traceback for f in ran):
            lines.append("  --verbose shows the traceback")
        lines += _tracebacks(ran) if most is None else []
        skipped = [f.check for f in failing if f.verdict == "not-run"]
        if skipped:
            lines.append(f"  not run: {', '.join(skipped)} ({failing[-1].detail})")
    return lines


def _tracebacks(findings: Sequence[Finding]) -> list[str]:
    """Return the lines of all different tracebacks in the findings. Before each traceback comes a
    line with the names of the checks that raised it."""
    checks: dict[str, list[str]] = {}
    for finding in findings:
        if finding.traceback:
            checks.setdefault(finding.traceback, []).append(finding.check)
    lines = []
    for text, check_names in checks.items():
        lines += _indent_lines(f"traceback of {', '.join(check_names)}:\n{text.rstrip()}", "  ")
    return lines


def _indent_lines(text: str, margin: str) -> list[str]:
    """Split a text into lines. Indent the first line by ``margin``, and all other lines more
    deeply."""
    return indent(text, f"{margin}  ", lambda _: True)[2:].split("\n")


def describe_details(report: Report) -> list[str]:
    """Return lines about each cell: the code that ran its layers, and for each check the verdict,
    the duration and the largest error."""
    lines = []
    for result in report.results:
        paths = ", ".join(f"{k}: {v}" for k, v in result.layers.items())
        reused_text = f", kept from {result.since}" if result.kept else ""
        lines.append(f"{result.cell} ({result.version}; {paths}): {result.verdict}{reused_text}")
        for f in result.findings:
            worst = f.worst
            numbers = (
                f"error {worst.error:.2e}, {worst.ratio:.3g} x yardstick, in {worst.name}"
                if worst
                else f"{f.held} conditions held"
            )
            lines.append(f"  {f.check:22} {f.verdict:16} {f.seconds:7.3f} s  {numbers}")
            lines += _indent_lines(f.detail, "    ") if f.detail and f.verdict in PASSING else []
    return lines


def describe_not_applicable(report: Report) -> list[str]:
    """Return a line with the names of the checks that had nothing to compare in any cell; no line
    if there are no such checks."""
    not_applicable = [
        f for r in report.results for f in r.findings if f.verdict == "not-applicable"
    ]
    if not not_applicable:
        return []
    checks = ", ".join(dict.fromkeys(f.check for f in not_applicable))
    return [f"nothing to compare: {checks} ({len(not_applicable)} results; reasons: --verbose)"]


def list_known_differences(report: Report) -> list[str]:
    """Return the texts of the known differences that occurred in a run."""
    excuses = (finding.excuse for result in report.results for finding in result.findings)
    return list(dict.fromkeys(filter(None, excuses)))


def find_outliers(report: Report) -> list[str]:
    """Return a line for each backend that differs from all other backends (see :mod:`.pairs`)."""
    groups: dict[Group, list[CellResult]] = {}
    for result in report.results:
        groups.setdefault(group_of(result.cell), []).append(result)
    return [*report.outliers, *filter(None, map(find_outlier, groups.values()))]


def describe_given_arrays(request: Request, specs: ModelCollection) -> list[str]:
    """Return lines about the user's arrays: their names and sizes, and which other arrays of the
    spec are random. Return no lines if the user gave no arrays."""
    arrays_given = request.given
    if arrays_given is None:
        return []
    program = specs[arrays_given.spec].programs["training"]
    groups = {
        name: arrays for name, arrays in arrays_given.groups().items() if getattr(program, name)
    }
    group_texts = [
        f"{group} (sha256 {digest[:12]})" for group, digest in arrays_given.digests.items()
    ]
    sources = (
        f" of {', '.join(map(displayed, arrays_given.files.values()))}"
        if arrays_given.files
        else ""
    )
    initial = [n for n in groups if n == "state" and arrays_given.arrays.inputs and not groups[n]]
    random = [n for n, arrays in groups.items() if not arrays and n not in initial]
    record = describe_arrays(arrays_given)
    lines = [
        f"given: {', '.join(group_texts)}{sources}; batch {record.batch}, time {record.time}; "
        "further batches of a check are random"
    ]
    further = [f"{n} (its initial value is used)" for n in initial] + (
        [f"{', '.join(random)} (random values are used)"] if random else []
    )
    if further:
        lines.append(f"not given: {'; '.join(further)}")
    if request.checks == AT_GIVEN:
        skipped = ", ".join(name for name in CHECKS if name not in AT_GIVEN)
        lines.append(f"skipped checks, which use random data of their own: {skipped}")
    return lines


def describe_proof(gaps: Mapping[str, float]) -> str:
    """Return a line about the test of the oracle's gradients: their largest error relative to the
    complex-step method (:mod:`harness.oracle.complex_step`). ``gaps`` maps each spec to its error.
    """
    proved = [gap for gap in gaps.values() if not math.isnan(gap)]
    specs = several(len(proved), "spec")
    parts = []
    if proved:
        parts.append(f"the gradients of {specs} agree with the complex step to {max(proved):.1e}")
    if infinite := [name for name, gap in gaps.items() if math.isnan(gap)]:
        parts.append(
            f"the gradients of {', '.join(infinite)} are not finite, so they cannot be verified"
        )
    return f"oracle: {'; '.join(parts)}"


def summarise(report: Report) -> str:
    """Return the last line of a report: the number of cells with each verdict, and the duration."""
    counts: dict[str, int] = {}
    ran = [r for r in report.results if not r.kept]
    compared = sum(f.comparisons for r in ran for f in r.findings)
    for result in report.results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    counts_text = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "none"
    reused = [r for r in report.results if r.kept]
    reused_text = f" ({len(reused)} kept: {', '.join(count_by_day(reused))})" if reused else ""
    cells = several(len(report.results), "cell")
    not_run = f"; {report.left_out} more not run after the first failure" if report.left_out else ""
    missing = "".join(f"; not compared: {words}" for words in not_compared(report.results))
    work = f"{compared:,} comparisons in {report.seconds:.0f} s"
    return f"{cells}: {counts_text}{reused_text}{not_run}{missing}; {work}"


def count_reused_cells(report: Report) -> list[str]:
    """Return a line for each backend: how many cells ran now, and how many results were reused from
    earlier runs. Return no lines if no result is reused."""
    if not any(result.kept for result in report.results):
        return []
    lines = []
    for backend in dict.fromkeys(r.cell.backend for r in report.results):
        of_backend = [r for r in report.results if r.cell.backend == backend]
        reused = [r for r in of_backend if r.kept]
        texts = (
            [f"{len(of_backend) - len(reused)} run now"] if len(of_backend) > len(reused) else []
        )
        texts += [f"{day_count} kept" for day_count in count_by_day(reused)]
        lines.append(f"{backend}: {', '.join(texts)}")
    return lines


def first_lines(lines: Sequence[str] | Iterable[str], limit: int) -> list[str]:
    """Return the first ``limit`` lines. If there are more lines, the last returned line has the
    number of omitted lines."""
    lines = list(lines)
    if len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more lines (--verbose shows all)"]


# On GitHub, a run of checks writes annotations at lines of specs, and the summary of the workflow
# step.


def annotate_failures(
    report: Report, specs: ModelCollection, compared: RunChanges | None = None
) -> list[str]:
    """Return GitHub annotations for failing cells. An annotation points to the line of the spec
    that is wrong. If this line is unknown, it points to the line with the model's name. If the
    results were compared with an older run, changes for the worse are errors, and other failures
    are warnings."""
    failing = {r.cell: r for r in report.results if r.verdict not in PASSING}
    annotations: list[str] = []
    if compared is not None:
        for change in compared.changes:
            if isinstance(change, CellChange) and change.worse:
                failed = failing.pop(change.cell, None)
                positions = find_places(failed, specs) if failed else ()
                annotations.append(github.annotation(compared.what, str(change), positions))
    level = "error" if compared is None else "warning"
    for cell, result in failing.items():
        positions = find_places(result, specs)
        annotations.append(
            github.annotation(
                f"{cell}: {result.verdict}", "\n".join(describe_failure(result)), positions, level
            )
        )
    return github.limit(annotations)


def describe_failure(result: CellResult) -> list[str]:
    """Return texts about a failing cell: the first difference, which code is at fault, and the
    first failing check."""
    fault = result.first_fault
    check_text = f"{fault.check}: {fault.verdict}: {fault.detail}" if fault else ""
    return [*filter(None, (result.location, str(result.blame or ""), check_text))]


def find_places(result: CellResult, specs: ModelCollection) -> Iterator[str]:
    """Yield positions (``file:line``) for a failing cell: of the wrong equation, of the wrong
    layers, and of the model's name, in this order."""
    if result.place:
        yield result.place
    model = specs[result.cell.spec].definition
    paths: list[KeyPath] = [("layers", n, result.wrong_attribute) for n in result.wrong_layers]
    layer_names = (*result.wrong_layers, *result.named_layers)
    # A layer of a repeated block, e.g. blocks.0.up, is in the model's file under the name
    # "blocks".
    paths += [("layers", name.partition(".")[0]) for name in layer_names]
    keys = model.document.nodes.keys
    for place in (*(keys[path] for path in paths if path in keys), model.name[1]):
        yield f"{place.file}:{place.line}"


def markdown(report: Report, compared: RunChanges | None = None) -> str:
    """Return the report of a run in Markdown: the summary, the table, and the failures."""
    lines = [f"### harness check: {escaped(summarise(report))}", ""]
    if compared is not None:
        lines += [compared.markdown(), ""]
    results = ResultTable(report.results)
    rows = [
        [spec, *(" / ".join(map(cell_text, filter(None, column))) or "-" for column in row)]
        for spec, row in results.rows.items()
    ]
    lines += [escaped(results.title), "", table(results.columns, rows), ""]
    for result in report.results:
        if result.verdict not in PASSING:
            title = escaped(f"{result.cell}: {result.verdict}")
            lines.append(f"- **{title}**: {escaped(sentences(describe_failure(result)))}")
    lines += ["", *(f"- {escaped(text)}" for text in describe_pairs(report.pairs, report.results))]
    return "\n".join(lines) + "\n"
