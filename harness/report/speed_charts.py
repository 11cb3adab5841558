"""Charts of speeds: dots on a logarithmic axis, beside a baseline that may be chosen on the page.

A page has the places of all dots for every baseline, so that choosing one is moving them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.output.table import thousands
from harness.report import svg_pictures
from harness.report.inputs import BenchRun, Inputs
from harness.report.speeds import Chart, Dot, charts, doubted

# Steps of an axis within a power of ten, of which one gives few enough ticks.
STEPS: Sequence[Sequence[float]] = (
    *((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    [1 + n / 4 for n in range(36)],
)
FEWEST, DECADES = 2, 12
# Their names have room beside each other on a telephone where such a part of an axis is between.
APART = 0.16
# So much of an axis is free at each end.
MARGIN = 0.04


@dataclass(frozen=True)
class ChartSpot:
    """Where a dot stands and where its bar begins, in percent of the axis, how wide the bar is, and
    how many times as fast as the baseline the cell is."""

    place: float
    low: float
    width: float
    times: str


@dataclass(frozen=True)
class ChartView:
    """A chart beside one baseline: ticks with their places, that of the baseline, and the spots by
    system and backend; None for a cell that has no speed there."""

    label: str
    ticks: Sequence[tuple[float, str]]
    one: float | None
    spots: Sequence[Sequence[ChartSpot | None]]

    def record(self) -> dict[str, Any]:
        """For the page's script."""
        return {
            "label": self.label,
            "ticks": self.ticks,
            "one": self.one,
            "spots": [[spot and [*vars(spot).values()] for spot in row] for row in self.spots],
        }


@dataclass(frozen=True)
class ShownChart:
    """A chart as the page has it: the view that is shown first, all others by baseline, and the
    numbers as texts, before and behind how many times as fast a cell is."""

    chart: Chart
    looks: Mapping[str, tuple[str, str]]
    view: ChartView
    views: Mapping[str, ChartView]
    rows: Sequence[tuple[str, Sequence[tuple[str, str] | None]]]
    doubts: Sequence[str]


def shown(inputs: Inputs, baseline: str | None) -> list[ShownChart]:
    """The charts of all files, each file's backends in the same colours."""
    return [
        _shown(chart, run, baseline or "")
        for run in inputs.benches
        for chart in charts(run.file, None, inputs.told_apart(run))
    ]


def baselines(found: Iterable[ShownChart]) -> list[str]:
    """The backends that have a speed, and so can be a baseline."""
    return sorted({dot.backend for c in found for _, dots in c.chart.rows for dot in dots})


def _shown(chart: Chart, run: BenchRun, baseline: str) -> ShownChart:
    timed = {speed.params.backend for speed in run.file.benchmarks}
    views = {name: _view(chart, name) for name in ("", *sorted(timed))}
    backends = sorted(timed | {cell.params.backend for cell in run.file.harness.without_speed})
    rows = [
        (system, [_told(_of(dots, backend)) for backend in chart.backends])
        for system, dots in chart.rows
    ]
    doubts = [f"{', '.join(of)}: {doubt}" for doubt, of in doubted(chart)]
    view = views.get(baseline, views[""])
    return ShownChart(chart, svg_pictures.looks(backends), view, views, rows, doubts)


def _of(dots: Sequence[Dot], backend: str) -> Dot | None:
    return next((dot for dot in dots if dot.backend == backend), None)


def _told(dot: Dot | None) -> tuple[str, str] | None:
    if dot is None:
        return None
    many = f" x{dot.figures.many}" if (dot.figures.many or 1) > 1 else ""
    rate = f"{thousands(dot.rate)} k ({thousands(dot.q1)} to {thousands(dot.q3)})"
    return rate, f"; {dot.figures.path}{many}"


def _view(chart: Chart, baseline: str) -> ChartView:
    """The chart beside a baseline; as it is where that has no speed, or is none."""
    bases = {system: dot.rate for system, dots in chart.rows if (dot := _of(dots, baseline))}
    scaled = [
        (dot, bases.get(system) if bases else 1.0) for system, dots in chart.rows for dot in dots
    ]
    reach = [value / base for dot, base in scaled if base for value in (dot.rate, dot.q1, dot.q3)]
    reach = [value for value in reach if value > 0] + ([1.0] if bases else [])
    if not reach:
        return ChartView(chart.unit, (), None, [[None] * len(chart.backends) for _ in chart.rows])
    low, high = math.log10(min(reach)), math.log10(max(reach))
    wide = max(high - low, 0.1)

    def place(value: float) -> float:
        share = (math.log10(value) - low) / wide if value > 0 else 0.0
        return round(100 * (MARGIN + share * (1 - 2 * MARGIN)), 2)

    def spot(system: str, dot: Dot | None) -> ChartSpot | None:
        base = bases.get(system) if bases else 1.0
        if dot is None or not base:
            return None
        times = f", {dot.rate / base:.2f} times" if bases else ""
        at, q1, q3 = (place(value / base) for value in (dot.rate, dot.q1, dot.q3))
        return ChartSpot(at, min(q1, q3), round(abs(q3 - q1), 2), times)

    return ChartView(
        f"times as fast as {baseline}" if bases else f"{chart.unit} per second",
        [(place(value), svg_pictures.figure(value)) for value in _ticks(low, low + wide)],
        place(1.0) if bases else None,
        [[spot(s, _of(dots, backend)) for backend in chart.backends] for s, dots in chart.rows],
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten: as few as tell the scale."""
    found: list[float] = []
    for steps in STEPS:
        powers = range(math.floor(low), math.floor(high) + 1)
        every = -(-len(powers) // DECADES)
        values = [step * 10.0**power for power in powers[::every] for step in steps]
        found = [v for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]
        if len(found) >= FEWEST:
            break
    kept: list[float] = []
    for value in found:
        if not kept or math.log10(value / kept[-1]) >= APART * (high - low):
            kept.append(value)
    return kept
