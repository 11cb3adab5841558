"""Report as a single HTML file. The page loads nothing from the network, and is readable without
scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jinja2 import Template
from markupsafe import Markup

from harness.checking.pairs import FEW
from harness.oracle.tolerance import Deviation
from harness.output.html import escaped
from harness.output.printing import visible
from harness.output.templates import html_templates, page_style
from harness.report import cells, speeds, svg_pictures
from harness.report.cells import MatrixEntry, error_share
from harness.report.environment import (
    TRAINING_COLUMNS,
    list_environment,
    list_facts,
    make_model_view,
    training_rows,
)
from harness.report.failed_cells import describe_failed_cells
from harness.report.headline import headline
from harness.report.history import HEIGHT, WIDTH, RunHistory
from harness.report.inputs import CheckRun, Inputs
from harness.report.speeds import ShownChart, roofline
from harness.results.cell import CellResult
from harness.results.findings import PASSING, Finding
from harness.runs.changes import MOVED, list_moved_digits

# Data of cells and charts for the script of the page, compact enough for thousands of cells.


class Names:
    """The strings of the page's data, each with a number. The page contains each string once.
    Elsewhere in the data, the number stands for the string."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of the string ``name``, which is added if it is new. Control characters
        in it are replaced by visible text."""
        return self._numbers.setdefault(visible(name), len(self._numbers))

    @property
    def all(self) -> list[str]:
        """The list of all strings. A string's number is its index in this list."""
        return list(self._numbers)


def page_data(entries: Iterable[MatrixEntry], speeds: Iterable[ShownChart] = ()) -> str:
    """Return the data of cells and charts as JSON for a ``script`` element.

    - ``names`` is a list of strings. In ``entries``, a number can stand for a string: its index in
      ``names``.
    - ``entries`` maps the number of a table entry to its spec, backend, path and ``dtypes``, a list
      with one object per dtype. Each check in such an object is a list: check, verdict, error,
      yardstick, tolerance, worst tensor, held, seconds, detail, spread, growth. Empty values at the
      end of the list are left out.
    - ``charts`` is a list with an object for each chart. It maps a baseline to the chart's speeds
      divided by the baseline's speeds.
    """
    names = Names()
    entry_data = {
        str(entry.number): {
            "spec": visible(entry.spec),
            "backend": visible(entry.backend),
            "path": visible(entry.path),
            "dtypes": [_cell_data(result, names) for result in entry.results],
        }
        for entry in entries
    }
    views = [
        {visible(name): view.record() for name, view in chart.views.items()} for chart in speeds
    ]
    return escape_json({"names": names.all, "entries": entry_data, "charts": views})


def escape_json(data: Any) -> str:
    """Return ``data`` as JSON without the characters ``<``, ``>`` and ``&``, which could end the
    HTML element that contains it or start a new element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _cell_data(result: CellResult, names: Names) -> dict[str, object]:
    worsts = [finding.worst for finding in result.findings]
    kept = f"; the verdict is kept from {result.since}" if result.remembered else ""
    nearest = max((error_share(worst) for worst in worsts if worst), default=None)
    return {
        "dtype": visible(result.cell.dtype),
        "verdict": result.verdict,
        "version": names.number(f"{result.version}{kept}"),
        "layers": names.number(_describe_layers(result.layers)),
        "seconds": round(result.seconds, 2),
        "location": visible(result.location),
        "checks": [
            _check_row(finding, worst, names, nearest)
            for finding, worst in zip(result.findings, worsts, strict=True)
        ],
    }


def _describe_layers(layers: Mapping[str, str]) -> str:
    """Describe which implementation ran each layer, e.g. ``gru: GRU; embed, out: equations``.
    ``layers`` maps a layer to its implementation."""
    by_kind: dict[str, list[str]] = {}
    for layer, kind in layers.items():
        by_kind.setdefault(kind, []).append(layer)
    if len(by_kind) == 1:
        return f"all layers: {next(iter(by_kind))}"
    # Layers that ran as equations come last.
    ordered = sorted(by_kind.items(), key=lambda item: item[0] == "equations")
    return "; ".join(f"{', '.join(layer_names)}: {kind}" for kind, layer_names in ordered)


def _check_row(
    finding: Finding, worst: Deviation | None, names: Names, nearest: float | None
) -> list[Any]:
    numbers: list[Any] = [None] * 3
    if worst is not None:
        numbers = [_round_number(n) for n in (worst.error, worst.yardstick, worst.tolerance)]
    row = [
        names.number(finding.check),
        names.number(finding.verdict),
        *numbers,
        names.number(worst.name) if worst is not None else None,
        finding.held,
        round(finding.seconds, 2),
        visible(finding.detail),
        [],
        [],
    ]
    # Only failed checks and the check closest to its tolerance show their histogram.
    if worst is not None and (finding.verdict not in PASSING or error_share(worst) == nearest):
        row[-2] = list(worst.spread)
    row[-1] = [[n, _round_number(e), _round_number(t)] for n, e, t in finding.growth]
    while row and row[-1] in ([], "", 0, None):
        row.pop()
    return row


def _round_number(number: float) -> Any:
    """Return a number, rounded to three digits. If it is NaN or infinite, return it as text,
    because JSON has no such numbers."""
    return float(f"{number:.3g}") if math.isfinite(number) else str(number)


if TYPE_CHECKING:
    from harness.checking.known_differences import Differences
    from harness.report.changes import News

# The maximum number of differences shown in full; the matrix shows all other differences.
MOST_FAILED_CELLS = 30
# The script files of the page, which joins them into one script.
SCRIPTS = ("report.js", "matrix.js", "histogram.js")
# The number of differences whose details are expanded at first.
OPENED = 4
MISSING = (
    "Plots are missing: install matplotlib with "
    'pip install "backend-comparison-harness[report]", and write the report again.'
)


def page(
    inputs: Inputs,
    news: News | None = None,
    history: RunHistory | None = None,
    baseline: str | None = None,
    differences: Differences | None = None,
) -> str:
    """Return the HTML of the page. If ``baseline`` names a backend, speeds are divided by its
    speeds.

    ``news`` has the changes since an older run, ``history`` the older runs of a folder, and
    ``differences`` the known differences.
    """
    drawn = svg_pictures.available()
    check = inputs.check
    tables = cells.make_matrices(check.cells) if check else []
    charts = speeds.make_charts(inputs, baseline)
    shown, left = describe_failed_cells(check, MOST_FAILED_CELLS) if check else ([], 0)
    dtypes = sorted({cell.dtype for cell in check.cells}) if check else []
    pairs = check.pairs(every=True) if check else []
    models = check.models if check else {}
    entries = (e for matrix in tables for _, row in matrix.rows for e in row if e is not None)
    roof = next(filter(None, (roofline(run.file) for run in inputs.benches)), None)
    drawn_losses = drawn and inputs.trainings
    context: dict[str, object] = {
        "headline": headline(inputs, news),
        "facts": list_facts(inputs),
        "changes": news.listed_changes if news else [],
        "folded": news.collapsed_changes if news else [],
        "moved": list_moved_digits(news.moved) if news else [],
        "moved_words": MOVED,
        "base_name": news.what if news else "",
        "failed_cells": shown,
        "opened": OPENED,
        "more_failed_cells": left,
        "known": _known_difference_rows(check, differences),
        "matrices": tables,
        "pairs": pairs if len(pairs) > FEW else [],  # a few pairs are in the headline
        "models": [make_model_view(name, told) for name, told in models.items()],
        "dtypes": dtypes,
        "cut": ", ".join(map(str, check.records.cut_off)) if check else "",
        "data": Markup(page_data(entries, charts)),
        "growth": _draw_growth(check) if check and drawn else None,
        "charts": charts,
        "baselines": speeds.baselines(charts),
        "baseline": baseline or "",
        "roofline": Markup(svg_pictures.roofline(roof)) if drawn and roof else None,
        "losses": Markup(svg_pictures.losses(inputs.trainings)) if drawn_losses else None,
        "metrics": _draw_metrics(inputs) if drawn else None,
        "trainings": training_rows(inputs.trainings),
        "trained": TRAINING_COLUMNS,
        "history": _history_data(history, drawn),
        "environment": list_environment(inputs, news.environment if news else ()),
        # The commands that ran, and the command that writes reproducers.
        "commands": [*inputs.commands, *(t.reproducer for t in shown[:1] if t.reproducer)],
        "missing_pictures": "" if drawn else MISSING,
        "version": version("backend-comparison-harness"),
    }
    template, style, script = _load_templates()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    css = page_style() + style.render(paths=len(tables), dtypes=len(dtypes))
    return template.render(
        **context, css=Markup(css), js=Markup(script), script_hash=f"sha256-{digest}"
    )


def prepare_page() -> None:
    """Load the templates and libraries that a page needs. If one of them is missing, the error then
    comes before a long run, not after it.

    Raises:
        ImportError: matplotlib is installed, but cannot be imported.
    """
    if svg_pictures.available():
        svg_pictures.draw_empty()
    _load_templates()


@cache
def _load_templates() -> tuple[Template, Template, str]:
    """Return the Jinja template of the page, the template of its style sheet, and the text of its
    script."""
    templates = html_templates("harness.report", "templates")
    # The page must not break an option at its hyphens.
    templates.filters["options"] = lambda text: Markup(
        re.sub(r"(--[a-z-]+)", r'<span class="option">\1</span>', escaped(text))
    )
    assert templates.loader is not None
    scripts = (templates.loader.get_source(templates, name)[0] for name in SCRIPTS)
    return (
        templates.get_template("report.html.j2"),
        templates.get_template("report.css"),
        "".join(scripts),
    )


def _known_difference_rows(
    check: CheckRun | None, differences: Differences | None
) -> list[dict[str, str]]:
    if check is None:
        return []
    entries = differences.entries if differences else {}
    rows = []
    for words, names in cells.list_known_differences(check.cells):
        name = next((n for n in entries if f"known difference {n}:" in words), None)
        entry = entries[name] if name else None
        link = entry.link if entry and entry.link.startswith("https://") else ""
        reason = entry.reason if entry else ""
        rows.append({"words": words, "reason": reason, "link": link, "cells": ", ".join(names)})
    return rows


def _draw_growth(check: CheckRun) -> Markup | None:
    """Draw how errors grow over the training steps: the error divided by the tolerance, for the
    worst cell of each backend and dtype."""
    nearest: dict[str, tuple[float, Sequence[tuple[float, float]]]] = {}
    for cell, result in check.cells.items():
        for finding in result.findings:
            points = [
                (float(n), error / allowed) for n, error, allowed in finding.growth if allowed
            ]
            points = [(n, share) for n, share in points if 0 < share < float("inf")]
            if len(points) > 1:
                name = f"{cell.backend} {cell.dtype}"
                most = max(share for _, share in points)
                if name not in nearest or most > nearest[name][0]:
                    nearest[name] = (most, points)
    if not nearest:
        return None
    series = {name: points for name, (_, points) in sorted(nearest.items())}
    return Markup(svg_pictures.lines("step", series, limit=1.0))


def _draw_metrics(inputs: Inputs) -> Markup | None:
    """Draw the metrics on held-out data (e.g. the accuracy) by epoch; return None if no training
    has metrics."""
    series: dict[str, list[tuple[float, float]]] = {}
    for training in inputs.trainings:
        for epoch in training.history.epochs:
            for name, value in epoch.held_out_metrics.items():
                label = f"{name} of {training.spec} on {training.history.backend} ({training.name})"
                series.setdefault(label, []).append((float(epoch.epoch), value))
    if not series:
        return None
    return Markup(svg_pictures.trend("epochs: metrics on held-out data", series, (), log=False))


def _history_data(history: RunHistory | None, drawn: bool) -> dict[str, object] | None:
    if history is None:
        return None
    drawings = [Markup(picture) for picture in history.drawn()] if drawn else []
    return {
        "pictures": drawings,
        "rows": history.rows,
        "systems": history.systems(),
        "width": WIDTH,
        "height": HEIGHT,
    }
