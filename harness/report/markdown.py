"""Reports as Markdown, for a pull request or the summary of a CI run."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from harness.checking.pairs import FEW
from harness.output.markdown import code, fenced, sentences, table
from harness.output.markdown import escaped as plain
from harness.output.table import thousands
from harness.report.cells import Matrix, MatrixEntry, make_matrices
from harness.report.environment import (
    TRAINING_COLUMNS,
    list_environment,
    make_model_view,
    training_rows,
)
from harness.report.failed_cells import FailedCell, describe_failed_cells
from harness.report.headline import headline
from harness.report.inputs import CheckRun, Inputs
from harness.report.speeds import Chart, charts, group_doubts
from harness.runs.changes import MOVED, list_moved_digits

if TYPE_CHECKING:
    from harness.report.changes import News

MOST_FAILED_CELLS, MOST_CHANGES = 10, 30
# The maximum number of characters that are shown of a check's detail.
MOST_SEEN = 300
MARK = "<!-- backend-comparison-harness report -->"


def markdown(inputs: Inputs, news: News | None = None, baseline: str | None = None) -> str:
    """Return the report as Markdown: headline, worst cells, table of verdicts, speeds and
    environment. If ``baseline`` names a backend, speeds are divided by its speeds."""
    top = headline(inputs, news)
    lines = [MARK, f"## {top.sign} {plain(top.sentence)}", ""]
    lines += [plain(line) + "  " for line in (*top.lines, top.against) if line]
    lines += [code(command) + "  " for command in inputs.commands]
    if news is not None and news.changes:
        items = [f"- **{plain(c.label)}** {plain(c.words)}" for c in news.listed_changes]
        items[MOST_CHANGES:] = _more_lines(len(items) - MOST_CHANGES)
        if news.collapsed_changes:
            items.append(f"- {len(news.collapsed_changes)} changes that are not worse")
        lines += ["", *items]
    if news is not None and news.moved:
        items = [f"- {plain(text)}" for text in list_moved_digits(news.moved)]
        lines += ["", f"{MOVED}:", "", *items]
    if inputs.check is not None:
        items = []
        shown, left = describe_failed_cells(inputs.check, MOST_FAILED_CELLS)
        for failed_cell in shown:
            words = plain(_sentences(failed_cell))
            items.append(
                f"- **{plain(failed_cell.title)}** {words}  \n  {code(failed_cell.command)}"
            )
        lines += ["", *items, *_more_lines(left)] if items else []
        for matrix in make_matrices(inputs.check.cells):
            lines += ["", *_matrix_lines(matrix)]
    for run in inputs.benches:
        for chart in charts(run.file, baseline, inputs.label_of(run)):
            lines += ["", *_chart_lines(chart)]
    if inputs.trainings:
        lines += ["", "**Trainings**", "", table(TRAINING_COLUMNS, training_rows(inputs.trainings))]
    lines += _model_lines(inputs.check)
    rows = list_environment(inputs, news.environment if news else ())
    before = {row.name: f"{plain(row.before)} → " if row.before else "" for row in rows}
    items = [f"- {plain(row.name)}: {before[row.name]}{plain(row.now)}" for row in rows]
    return "\n".join([*lines, *_collapsible("Environment", items), ""])


def _model_lines(check: CheckRun | None) -> list[str]:
    """Return Markdown lines, which GitHub shows after a click: about the models, and about the
    pairs of backends if they are too many for the headline."""
    if check is None:
        return []
    lines: list[str] = []
    pairs = check.pairs(every=True)
    if len(pairs) > FEW:
        lines += _collapsible("Pairs of backends", [f"- {plain(pair)}" for pair in pairs])
    models: list[str] = []
    for view in (make_model_view(name, told) for name, told in check.models.items()):
        facts = [f"- {word}: {plain(text)}" for word, text in view.facts]
        loss = [f"- loss: {code(view.loss)}"] if view.loss else []
        models += [f"**{plain(view.name)}**", "", *facts, *loss, "", *fenced(view.equations, "")]
    return lines + (_collapsible("Models: what was checked", models) if models else [])


def _collapsible(summary: str, lines: Sequence[str]) -> list[str]:
    return ["", f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]


def _more_lines(left: int) -> list[str]:
    return [f"- and {left} more"] if left > 0 else []


def _sentences(failed_cell: FailedCell) -> str:
    """Return sentences about a failed cell: where the fault is, and which part is at fault.

    If the place of the fault is unknown, they name the first failed check instead.
    """
    parts = [failed_cell.location, f"{failed_cell.who} {failed_cell.blame}".strip()]
    if not failed_cell.location and failed_cell.checks:
        first = failed_cell.checks[0]
        seen = shorten(first.detail, MOST_SEEN, placeholder=" ...")
        parts[0] = f"{first.check}: {first.verdict}" + (f": {seen}" if seen else "")
    return sentences(parts)


def _matrix_lines(matrix: Matrix) -> list[str]:
    entries = [entry for _, row in matrix.rows for entry in row if entry is not None]
    dtypes = sorted({part.dtype for entry in entries for part in entry.parts})
    rows = [[spec, *(_format_entry(entry, dtypes) for entry in row)] for spec, row in matrix.rows]
    which = plain(f"{matrix.title}, {' / '.join(dtypes)}")
    title = f"**Digits of agreement with the oracle, {which}**"
    return [title, "", table(["system", *matrix.backends], rows)]


def _format_entry(entry: MatrixEntry | None, dtypes: Sequence[str]) -> str:
    if entry is None:
        return "-"
    by_dtype = {part.dtype: f"{part.digits or '·'} {part.check}".strip() for part in entry.parts}
    digits = " / ".join(by_dtype.get(dtype, "·") for dtype in dtypes) + entry.kept_sign
    sign = {"differs": "✗ ", "broken": "⚠ "}.get(entry.group, "")
    return f"{sign}{entry.mark} {digits}".strip() if entry.mark else digits


def _chart_lines(chart: Chart) -> list[str]:
    rows = []
    for system, dots in chart.rows:
        texts = {}
        for backend, dot in dots.items():
            times = "" if dot.times is None else f" ({dot.times:.2f}x)"
            texts[backend] = f"{thousands(dot.figures.rate.median)}{times}"
        rows.append([system, *(texts.get(backend, "-") for backend in chart.backends)])
    refused = [f"\n⊘ {plain(cell.name)}: {plain(cell.reason)}" for cell in chart.refused]
    if not rows:
        return [f"**{plain(chart.title)}**", *refused]
    title = f"**{plain(chart.title)}, thousand {plain(chart.unit)} per second**"
    doubts = [f"\n⚠ {plain(', '.join(of))}: {plain(doubt)}" for doubt, of in group_doubts(chart)]
    return [title, "", table(["system", *chart.backends], rows), *doubts, *refused]
