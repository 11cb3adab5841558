"""The printed report of a run: a table with a row per spec and a column per backend, and the
problems found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import indent

from rich.text import Text

from harness.checking.changes import CellChange
from harness.checking.checks import AT_GIVEN, CHECKS
from harness.checking.history import days
from harness.checking.pairs import Group, group_of, outlier, statements
from harness.checking.request import Request, given_record
from harness.checking.runner import Report
from harness.errors import several
from harness.files.forms import KeyPath
from harness.files.user_file import displayed
from harness.language.model import Shelf
from harness.output import github
from harness.output.markdown import escaped, sentences, table
from harness.output.printing import entry
from harness.output.table import Grid
from harness.results.cell import CellResult, not_compared
from harness.results.findings import MARKS, PASSING, Finding, digits
from harness.runs.compared import RunChanges

STYLES: Mapping[str, str] = {
    "agree": "green",
    "known-difference": "cyan",
    "unsupported": "dim",
    "not-applicable": "dim",
}


def cell_text(result: CellResult) -> str:
    """Return a cell's entry in the table: its digits of agreement (``15.6``), with its verdict if
    it does not agree (``DIFFER 2.1``)."""
    number = digits(result.findings)
    shown = "" if number is None else f"{number:.1f}"
    return f"{MARKS[result.verdict]} {shown}".strip()


class ResultTable:
    """The results of a run as a table with a row per spec and a column per backend. ``title`` says
    what the numbers mean. ``variants`` has the label of each combination of dtype and path, and
    ``rows`` the results of each spec: for each backend one result, or None, per variant. All are in
    the order of the run."""

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


def tables(report: Report) -> tuple[Grid, Grid]:
    """Return the table of specs by backends in two layouts. The first has a row per spec; the
    second, for narrow terminals, a row per spec, dtype and path."""
    found = ResultTable(report.results)
    wide = Grid(found.title, found.columns, ruled=True)
    narrow = Grid(found.title, ["system", "", *found.columns[1:]], names=2)
    for spec, row in found.rows.items():
        texts = [[_entry(result) for result in of_backend] for of_backend in row]
        wide.rows.append([spec, *(Text(" | ").join(column) for column in texts)])
        labelled = zip(found.variants, *texts, strict=True)
        narrow.rows += [[spec, *entries] for entries in labelled]
    return wide, narrow


def _entry(result: CellResult | None) -> Text:
    if result is None:
        return Text("-")
    return entry(cell_text(result), STYLES.get(result.verdict, "bold red"))


def problems(report: Report, most: int | None = 2) -> list[str]:
    """Return the lines about each cell that does not pass: where it differs, who is at fault, and
    the first failing checks. At most ``most`` checks per cell are shown in full (None: all).
    Further failing checks are only named."""
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
            lines += _rows(f"{finding.check}: {finding.verdict}: {finding.detail}", "  ")
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
    """Return each traceback with the names of its checks; equal tracebacks are shown once."""
    checks: dict[str, list[str]] = {}
    for finding in findings:
        if finding.traceback:
            checks.setdefault(finding.traceback, []).append(finding.check)
    lines = []
    for text, named in checks.items():
        lines += _rows(f"traceback of {', '.join(named)}:\n{text.rstrip()}", "  ")
    return lines


def _rows(text: str, margin: str) -> list[str]:
    """Split a text into lines, and indent all lines but the first more deeply."""
    return indent(text, f"{margin}  ", lambda _: True)[2:].split("\n")


def details(report: Report) -> list[str]:
    """Return for each cell the code that ran its layers, and a line for each check."""
    lines = []
    for result in report.results:
        paths = ", ".join(f"{k}: {v}" for k, v in result.layers.items())
        kept = f", kept from {result.since}" if result.kept else ""
        lines.append(f"{result.cell} ({result.version}; {paths}): {result.verdict}{kept}")
        for f in result.findings:
            worst = f.worst
            numbers = (
                f"error {worst.error:.2e}, {worst.ratio:.3g} x yardstick, in {worst.name}"
                if worst
                else f"{f.held} conditions held"
            )
            lines.append(f"  {f.check:22} {f.verdict:16} {f.seconds:7.3f} s  {numbers}")
            lines += _rows(f.detail, "    ") if f.detail and f.verdict in PASSING else []
    return lines


def no_answers(report: Report) -> list[str]:
    """Return a line with the names of the checks that had nothing to compare."""
    silent = [f for r in report.results for f in r.findings if f.verdict == "not-applicable"]
    if not silent:
        return []
    checks = ", ".join(dict.fromkeys(f.check for f in silent))
    return [f"nothing to compare: {checks} ({len(silent)} results; reasons: --verbose)"]


def known(report: Report) -> list[str]:
    """Return the texts of the known differences that were found."""
    found = (finding.excuse for result in report.results for finding in result.findings)
    return list(dict.fromkeys(filter(None, found)))


def outliers(report: Report) -> list[str]:
    """Return a line for each group of cells in which one backend differs from all others."""
    groups: dict[Group, list[CellResult]] = {}
    for result in report.results:
        groups.setdefault(group_of(result.cell), []).append(result)
    return [*report.outliers, *filter(None, map(outlier, groups.values()))]


def given(request: Request, specs: Shelf) -> list[str]:
    """Return lines that say which arrays the user gave, which were drawn, and at which sizes; empty
    if the user gave none."""
    found = request.given
    if found is None:
        return []
    program = specs[found.spec].programs["training"]
    groups = {name: arrays for name, arrays in found.groups().items() if getattr(program, name)}
    named = [f"{group} (sha256 {digest[:12]})" for group, digest in found.digests.items()]
    sources = f" of {', '.join(map(displayed, found.files.values()))}" if found.files else ""
    starts = [n for n in groups if n == "state" and found.arrays.inputs and not groups[n]]
    drawn = [n for n, arrays in groups.items() if not arrays and n not in starts]
    record = given_record(found)
    lines = [
        f"given: {', '.join(named)}{sources}; batch {record.batch}, time {record.time}; "
        "further batches of a check are random"
    ]
    others = [f"{n} has its initial value" for n in starts] + (
        [f"random {', '.join(drawn)}"] if drawn else []
    )
    if others:
        lines.append(f"not given: {'; '.join(others)}")
    if request.checks == AT_GIVEN:
        own = ", ".join(name for name in CHECKS if name not in AT_GIVEN)
        lines.append(f"skipped checks, which use random data of their own: {own}")
    return lines


def proof(gaps: Mapping[str, float]) -> str:
    """Return a line that says how closely the oracle's gradients agree with those of the
    complex-step method."""
    proved = [gap for gap in gaps.values() if not math.isnan(gap)]
    specs = several(len(proved), "spec")
    parts = []
    if proved:
        parts.append(f"the gradients of {specs} agree with the complex step to {max(proved):.1e}")
    if without := [name for name, gap in gaps.items() if math.isnan(gap)]:
        parts.append(
            f"the gradients of {', '.join(without)} are not finite, so they cannot be verified"
        )
    return f"oracle: {'; '.join(parts)}"


def summary(report: Report) -> str:
    """Return one line: the number of cells, the number of each verdict, and the duration."""
    counts: dict[str, int] = {}
    ran = [r for r in report.results if not r.kept]
    compared = sum(f.comparisons for r in ran for f in r.findings)
    for result in report.results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    listed = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "none"
    old = [r for r in report.results if r.kept]
    taken = f" ({len(old)} kept: {', '.join(days(old))})" if old else ""
    cells = several(len(report.results), "cell")
    left = f"; {report.left_out} more not run after the first failure" if report.left_out else ""
    missing = "".join(f"; not compared: {words}" for words in not_compared(report.results))
    counted = f"{compared:,} comparisons in {report.seconds:.0f} s"
    return f"{cells}: {listed}{taken}{left}{missing}; {counted}"


def kept(report: Report) -> list[str]:
    """Return a line per backend: how many cells ran now, and how many results come from earlier
    runs."""
    if not any(result.kept for result in report.results):
        return []
    lines = []
    for backend in dict.fromkeys(r.cell.backend for r in report.results):
        own = [r for r in report.results if r.cell.backend == backend]
        old = [r for r in own if r.kept]
        told = [f"{len(own) - len(old)} run now"] if len(own) > len(old) else []
        told += [f"{words} kept" for words in days(old)]
        lines.append(f"{backend}: {', '.join(told)}")
    return lines


def first_lines(lines: Sequence[str] | Iterable[str], limit: int) -> list[str]:
    """Return the first ``limit`` lines. If there are more, add a line with the number of lines left
    out."""
    lines = list(lines)
    if len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more lines (--verbose shows all)"]


# If checks run on GitHub, they write annotations of lines in specs, and the summary of the workflow
# step.


def alerts(report: Report, specs: Shelf, compared: RunChanges | None = None) -> list[str]:
    """Return GitHub annotations for failing cells, at the wrong line of a spec or at the model's
    name. After a comparison with an older run, only changes for the worse are errors; other
    failures are warnings."""
    failing = {r.cell: r for r in report.results if r.verdict not in PASSING}
    found: list[str] = []
    if compared is not None:
        for change in compared.changes:
            if isinstance(change, CellChange) and change.worse:
                failed = failing.pop(change.cell, None)
                at = places(failed, specs) if failed else ()
                found.append(github.annotation(compared.what, str(change), at))
    level = "error" if compared is None else "warning"
    for cell, result in failing.items():
        at = places(result, specs)
        found.append(
            github.annotation(f"{cell}: {result.verdict}", "\n".join(words(result)), at, level)
        )
    return github.few(found)


def words(result: CellResult) -> list[str]:
    """Return where a cell differs, who is at fault, and the first failing check."""
    fault = result.first_fault
    seen = f"{fault.check}: {fault.verdict}: {fault.detail}" if fault else ""
    return [*filter(None, (result.location, str(result.blame or ""), seen))]


def places(result: CellResult, specs: Shelf) -> Iterator[str]:
    """Yield ``file:line`` of the wrong equation, of the wrong layers, and of the model's name."""
    if result.place:
        yield result.place
    model = specs[result.cell.spec].definition
    paths: list[KeyPath] = [("layers", n, result.wrong_attribute) for n in result.wrong_layers]
    named = (*result.wrong_layers, *result.named_layers)
    # A layer of a repeated block, such as blocks.0.up, is in the model's file under the name
    # "blocks".
    paths += [("layers", name.partition(".")[0]) for name in named]
    keys = model.document.nodes.keys
    for place in (*(keys[path] for path in paths if path in keys), model.name[1]):
        yield f"{place.file}:{place.line}"


def markdown(report: Report, compared: RunChanges | None = None) -> str:
    """Return a report of the run in Markdown: the counts, the table, and the failures."""
    found = [f"### harness check: {escaped(summary(report))}", ""]
    if compared is not None:
        found += [compared.markdown(), ""]
    results = ResultTable(report.results)
    rows = [
        [spec, *(" / ".join(map(cell_text, filter(None, column))) or "-" for column in row)]
        for spec, row in results.rows.items()
    ]
    found += [escaped(results.title), "", table(results.columns, rows), ""]
    for result in report.results:
        if result.verdict not in PASSING:
            told = escaped(f"{result.cell}: {result.verdict}")
            found.append(f"- **{told}**: {escaped(sentences(words(result)))}")
    found += ["", *(f"- {escaped(text)}" for text in statements(report.pairs, report.results))]
    return "\n".join(found) + "\n"
