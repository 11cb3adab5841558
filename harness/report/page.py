"""The page: one file of HTML that needs no network, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.checking.pairs import FEW
from harness.output.html import escaped
from harness.output.printing import visible
from harness.output.shell import command_line
from harness.report import cells, past, speed_charts, svg_pictures
from harness.report.cells import Matrix
from harness.report.headline import headline
from harness.report.history import RunHistory
from harness.report.inputs import BenchRun, CheckRun, Inputs
from harness.report.models import ModelView, model_view
from harness.report.page_data import page_data
from harness.report.speeds import roofline
from harness.report.surroundings import environment, facts
from harness.report.trainings import TRAINED, trained
from harness.report.troubles import Trouble, troubles

if TYPE_CHECKING:
    from harness.checking.known_differences import Differences
    from harness.report.news import News

# Differences that are shown in full; of more the matrix tells.
MOST_TROUBLES = 30
# Commands that are shown: the last of as many as wrote to the files.
MOST_COMMANDS = 8
# Those of the page, which are one there.
SCRIPTS = ("report.js", "matrix.js", "histogram.js")
# So many of them stand open.
OPENED = 4
MISSING = (
    "Pictures are left out: install matplotlib with "
    'pip install "backend-comparison-harness[report]", and make the page again.'
)


def page(
    inputs: Inputs,
    news: News | None = None,
    history: RunHistory | None = None,
    baseline: str | None = None,
    differences: Differences | None = None,
) -> str:
    """The text of the page. ``baseline`` is a backend beside which speeds are shown.

    ``news`` is what changed since an older run, ``differences`` are those that are known.
    """
    drawn = svg_pictures.available()
    check = inputs.check
    found = cells.matrices(check.cells) if check else []
    speeds = speed_charts.shown(inputs, baseline)
    shown, left = troubles(check, MOST_TROUBLES) if check else ([], 0)
    context: dict[str, Any] = {
        "title": "Backend comparison",
        "headline": headline(inputs, news),
        "facts": facts(inputs),
        "changes": news.told if news else [],
        "folded": news.folded if news else [],
        "base_name": news.name if news else "",
        "troubles": shown,
        "opened": OPENED,
        "more_troubles": _more(left),
        "known": _known(check, differences),
        "matrices": found,
        "pairs": _pairs(check),
        "models": _models(check),
        "dtypes": sorted({cell.dtype for cell in check.cells}) if check else [],
        "cut": ", ".join(map(str, check.cut)) if check else "",
        "data": Markup(page_data((e for matrix in found for e in _entries(matrix)), speeds)),
        "growth": _growth(check) if check and drawn else None,
        "charts": speeds,
        "baselines": speed_charts.baselines(speeds),
        "baseline": baseline or "",
        "roofline": _roofline(inputs.benches) if drawn else None,
        "losses": _losses(inputs) if drawn else None,
        "metrics": _metrics(inputs) if drawn else None,
        "trainings": trained(inputs.trainings),
        "trained": TRAINED,
        "history": _history(history, drawn),
        "environment": environment(inputs, news.around if news else ()),
        "commands": _commands(inputs, shown),
        "missing_pictures": "" if drawn else MISSING,
        "version": version("backend-comparison-harness"),
    }
    context["sections"] = _sections(context)
    return _rendered(context)


def prepare_page() -> None:
    """Load all that a page needs, so that what is missing is found before a long run.

    Raises:
        ImportError: matplotlib is installed, and cannot be imported.
    """
    if svg_pictures.available():
        svg_pictures.draw_nothing()
    _templates()


@cache
def _templates() -> tuple[Template, Template, str]:
    """The templates of the page and of its style, and its script."""
    templates = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    templates.filters["options"] = _options
    assert templates.loader is not None
    scripts = (templates.loader.get_source(templates, name)[0] for name in SCRIPTS)
    return (
        templates.get_template("report.html.j2"),
        templates.get_template("report.css"),
        "".join(scripts),
    )


def _rendered(context: Mapping[str, Any]) -> str:
    template, style, script = _templates()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    css = style.render(paths=len(context["matrices"]), dtypes=len(context["dtypes"]))
    return template.render(
        **context, css=Markup(css), js=Markup(script), script_hash=f"sha256-{digest}"
    )


def _options(text: str) -> Markup:
    """A text whose ``--options`` are not broken at their hyphens."""
    return Markup(re.sub(r"(--[a-z-]+)", r'<span class="option">\1</span>', escaped(text)))


def _shown(value: Any) -> Any:
    """A stranger's text without characters that are not seen and yet do something."""
    return visible(value) if type(value) is str else value


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    every = (
        ("changes", "Changes", context["changes"] or context["folded"]),
        ("look", "Look here first", context["troubles"]),
        ("known", "Known differences", context["known"]),
        ("matrix", "Conformance", context["matrices"]),
        ("models", "Models", context["models"]),
        ("growth", "Training", context["growth"]),
        ("speed", "Speed", context["charts"]),
        ("roofline", "Roofline", context["roofline"]),
        ("training", "Loss", context["trainings"]),
        ("history", "History", context["history"]),
        ("environment", "Environment", context["environment"]),
        ("reproduce", "How to reproduce", context["commands"]),
    )
    return [(name, label) for name, label, there in every if there]


def _entries(matrix: Matrix) -> list[cells.MatrixEntry]:
    return [entry for _, row in matrix.rows for entry in row if entry is not None]


def _more(left: int) -> str:
    return f"And {left} more cells that do not pass, as the table shows." if left else ""


def _known(check: CheckRun | None, differences: Differences | None) -> list[dict[str, str]]:
    if check is None:
        return []
    entries = differences.entries if differences else {}
    told = []
    for words, names in cells.known(check.cells):
        name = next((n for n in entries if f"known difference {n}:" in words), None)
        entry = entries[name] if name else None
        link = entry.link if entry and entry.link.startswith("https://") else ""
        reason = entry.reason if entry else ""
        told.append({"words": words, "reason": reason, "link": link, "cells": ", ".join(names)})
    return told


def _pairs(check: CheckRun | None) -> list[str]:
    """All pairs of backends, if they are too many for the headline."""
    every = check.pairs(every=True) if check else []
    return every if len(every) > FEW else []


def _models(check: CheckRun | None) -> list[ModelView]:
    return [model_view(name, told) for name, told in check.models.items()] if check else []


def _growth(check: CheckRun) -> Markup | None:
    """The error of trainings over what is allowed, the nearest of each backend and dtype."""
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


def _roofline(benches: Sequence[BenchRun]) -> Markup | None:
    found = next(filter(None, (roofline(run.file) for run in benches)), None)
    return None if found is None else Markup(svg_pictures.roofline(found))


def _losses(inputs: Inputs) -> Markup | None:
    return Markup(svg_pictures.losses(inputs.trainings)) if inputs.trainings else None


def _metrics(inputs: Inputs) -> Markup | None:
    """The metrics on what is held out, by epoch; None if no training has any."""
    series: dict[str, list[tuple[float, float]]] = {}
    for training in inputs.trainings:
        for epoch in training.history.epochs:
            for name, value in epoch.held_out_metrics.items():
                label = f"{name} of {training.spec} on {training.history.backend} ({training.name})"
                series.setdefault(label, []).append((float(epoch.epoch), value))
    if not series:
        return None
    return Markup(svg_pictures.trend("epochs: metrics on what is held out", series, (), log=False))


def _history(history: RunHistory | None, drawn: bool) -> dict[str, Any] | None:
    if history is None:
        return None
    drawings = [Markup(picture) for picture in history.drawn()] if drawn else []
    return {
        "pictures": drawings,
        "rows": history.rows,
        "systems": history.systems(),
        "width": past.WIDTH,
        "height": past.HEIGHT,
    }


def _commands(inputs: Inputs, shown: Sequence[Trouble]) -> list[str]:
    """What was run, as far as it is known, and what makes reproducers."""
    ran = [head["arguments"] for head in (inputs.check.heads if inputs.check else ())]
    ran += [command for run in inputs.benches for command in run.file.harness.commands]
    # Of a run from Python there is no command.
    every = dict.fromkeys(command_line(["harness", *words]) for words in ran if words)
    found = [*every][-MOST_COMMANDS:]
    if shown:
        found += [trouble.reproducer for trouble in shown[:1] if trouble.reproducer]
    return found
