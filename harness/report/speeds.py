"""The report's charts of speeds: one chart for each mode, batch size and other sizes. A row of a
chart is a spec, and a dot is a backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import several
from harness.output.printing import visible
from harness.output.table import thousands
from harness.report import svg_pictures
from harness.report.inputs import Inputs
from harness.report.svg_pictures import Roof, Roofline
from harness.results.speeds import Figures, NoSpeed, Parameters, SpeedFile, Timed


@dataclass(frozen=True)
class Dot:
    """A speed in a chart. ``times`` is the speed divided by the speed of the baseline (a chosen
    backend), or None if the baseline has no speed for this spec."""

    figures: Figures
    times: float | None


@dataclass(frozen=True)
class Chart:
    """The speeds for one mode, batch size and other sizes. ``rows`` has pairs: a spec, and a
    dictionary from backend to speed.

    ``refused`` has the cells without a speed.
    """

    title: str
    unit: str
    backends: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Dot]]]
    refused: Sequence[NoSpeed]


def count_speeds(files: Sequence[SpeedFile]) -> str:
    """Return the numbers of cells with and without a speed, e.g. ``12 speeds, 1 refused``."""
    refused = sum(len(file.harness.without_speed) for file in files)
    text = several(sum(len(file.benchmarks) for file in files), "speed")
    return f"{text}, {refused} refused" if refused else text


def charts(file: SpeedFile, baseline: str | None, of: str = "") -> list[Chart]:
    """Return one chart for each mode, batch size and other sizes in a file. ``of`` is the label of
    the file, which is added to the titles."""
    title = _make_title_function(file, of)
    timed: dict[str, list[Timed]] = {}
    for speed in file.benchmarks:
        timed.setdefault(title(speed.params), []).append(speed)
    refused: dict[str, list[NoSpeed]] = {}
    for cell in file.harness.without_speed:
        refused.setdefault(title(cell.params), []).append(cell)
    return [
        _make_chart(name, timed.get(name, []), refused.get(name, []), baseline)
        for name in dict.fromkeys([*timed, *refused])
    ]


def _make_title_function(file: SpeedFile, of: str) -> Callable[[Parameters], str]:
    """Return a function that makes the title of a chart from the parameters of one of its cells.

    A title contains the mode, the batch size, and those other sizes that are not the same in all
    cells of the file.
    """
    values: dict[str, set[str]] = {}
    every = [speed.params for speed in file.benchmarks]
    every += [cell.params for cell in file.harness.without_speed]
    for cell in every:
        for name, value in cell.further.items():
            values.setdefault(name, set()).add(value)
    telling = {name for name, found in values.items() if len(found) > 1}

    def title(cell: Parameters) -> str:
        parts = [f"{name} {value}" for name, value in cell.further.items() if name in telling]
        return ", ".join([cell.mode, f"batch {cell.batch}", *parts]) + (f" ({of})" if of else "")

    return title


def _make_chart(
    title: str, speeds: Sequence[Timed], refused: Sequence[NoSpeed], baseline: str | None
) -> Chart:
    by_system: dict[str, list[Timed]] = {}
    for speed in speeds:
        name = speed.params.spec.removeprefix("lesson6/")
        times = {s.params.time for s in speeds if s.params.spec == speed.params.spec}
        system = f"{name} t{speed.params.time}" if len(times) > 1 else name
        by_system.setdefault(system, []).append(speed)
    rows = []
    for system, cells in by_system.items():
        figures = {cell.params.backend: cell.extra_info for cell in cells}
        base = figures[baseline].rate.median if baseline in figures else None
        dots = {b: Dot(f, f.rate.median / base if base else None) for b, f in figures.items()}
        rows.append((system, dots))
    units = dict.fromkeys(speed.extra_info.rate.unit for speed in speeds)
    backends = sorted({s.params.backend for s in speeds} | {r.params.backend for r in refused})
    return Chart(title, " or ".join(units), backends, rows, refused)


def group_doubts(chart: Chart) -> list[tuple[str, list[str]]]:
    """Return pairs: a reason why speeds are unreliable, and the names of the cells that it
    concerns."""
    by_doubt: dict[str, list[str]] = {}
    for system, dots in chart.rows:
        for backend, dot in dots.items():
            for doubt in dot.figures.doubts:
                by_doubt.setdefault(doubt, []).append(f"{system} on {backend}")
    return [*by_doubt.items()]


def roofline(file: SpeedFile) -> Roofline | None:
    """Return the data of the roofline plot of a file; return None if no cell has all measurements
    that the plot needs."""
    peaks, bandwidths, cells = [], [], []
    for speed in file.benchmarks:
        figures = speed.extra_info
        peak, width = (
            _positive_number(figures.peak, "large"),
            _positive_number(figures.bandwidth, "measured"),
        )
        share, reached = figures.share_of_bandwidth, figures.flops_per_second
        if not (peak and width):
            continue
        peaks.append(peak)
        bandwidths.append(width)
        if share and reached:
            name = speed.params.spec.removeprefix("lesson6/")
            label = f"{name} on {speed.params.backend}, {speed.params.mode} {speed.params.batch}"
            cells.append(Roof(label, reached / (share * width), reached))
    if not cells:
        return None
    return Roofline(max(peaks), max(bandwidths), cells)


def _positive_number(figures: Mapping[str, object], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


# Charts of speeds: dots on a logarithmic axis, relative to a baseline that the reader can choose.
# The page contains the positions of all dots for every baseline, so a choice only moves the dots.

# Candidate ticks within a power of ten; the first row that gives enough ticks is used.
STEPS: Sequence[Sequence[float]] = (
    *((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    [1 + n / 4 for n in range(36)],
)
FEWEST, DECADES = 2, 12
# The minimum distance of two ticks, as a share of the axis, so that labels fit on a phone.
APART = 0.16
# The free share at each end of an axis.
MARGIN = 0.04


@dataclass(frozen=True)
class ChartSpot:
    """The position of a speed on a chart's axis, in percent of the axis: ``place`` is the position
    of the dot, ``low`` the start of the error bar, and ``width`` its length.

    ``times`` is text: the speed divided by the baseline's speed.
    """

    place: float
    low: float
    width: float
    times: str


@dataclass(frozen=True)
class ChartView:
    """A chart with speeds divided by the speeds of one baseline. ``one`` is the position of the
    ratio 1 on the axis, or None if there is no baseline.

    ``ticks`` has pairs (position, text). ``spots`` has a list for each spec, with a dot (or None)
    for each backend.
    """

    label: str
    ticks: Sequence[tuple[float, str]]
    one: float | None
    spots: Sequence[Sequence[ChartSpot | None]]

    def record(self) -> dict[str, object]:
        """Return the chart as JSON data, with which the page's script moves the dots."""
        return {
            "label": visible(self.label),
            "ticks": self.ticks,
            "one": self.one,
            "spots": [[spot and [*vars(spot).values()] for spot in row] for row in self.spots],
        }


@dataclass(frozen=True)
class ShownChart:
    """A chart of the page, with the numbers and texts that the page needs.

    The page shows ``view`` first. The reader can choose a backend as baseline; ``views`` maps it to
    the chart with speeds divided by its speeds. ``looks`` maps a backend to its colour and marker.
    ``rows`` has for each spec the texts about its speeds.
    """

    chart: Chart
    looks: Mapping[str, tuple[str, str]]
    view: ChartView
    views: Mapping[str, ChartView]
    rows: Sequence[tuple[str, Sequence[tuple[str, str] | None]]]
    doubts: Sequence[str]


def make_charts(inputs: Inputs, baseline: str | None) -> list[ShownChart]:
    """Return the charts of all files of speeds. A backend has the same colour in all charts of a
    file."""
    shown_charts = []
    for run in inputs.benches:
        timed = {speed.params.backend for speed in run.file.benchmarks}
        refused = {cell.params.backend for cell in run.file.harness.without_speed}
        looks = svg_pictures.choose_looks(sorted(timed | refused))
        for chart in charts(run.file, None, inputs.label_of(run)):
            views = {name: _make_view(chart, name) for name in ("", *sorted(timed))}
            rows = [
                (s, [_dot_texts(dots.get(b)) for b in chart.backends]) for s, dots in chart.rows
            ]
            doubts = [f"{', '.join(of)}: {doubt}" for doubt, of in group_doubts(chart)]
            view = views.get(baseline or "", views[""])
            shown_charts.append(ShownChart(chart, looks, view, views, rows, doubts))
    return shown_charts


def baselines(shown_charts: Iterable[ShownChart]) -> list[str]:
    """Return the backends that have a speed in at least one chart. The reader of the page can
    choose each of them as baseline."""
    return sorted({backend for c in shown_charts for _, dots in c.chart.rows for backend in dots})


def _dot_texts(dot: Dot | None) -> tuple[str, str] | None:
    if dot is None:
        return None
    many = f" x{dot.figures.many}" if (dot.figures.many or 1) > 1 else ""
    middle, low, high = map(thousands, dot.figures.rate.quartiles)
    return f"{middle} k ({low} to {high})", f"; {dot.figures.path}{many}"


def _make_view(chart: Chart, baseline: str) -> ChartView:
    """Return a chart with its speeds divided by the speeds of the backend ``baseline``.

    If the baseline has no speed in this chart, the result shows the speeds themselves.
    """
    bases = {s: d[baseline].figures.rate.median for s, d in chart.rows if baseline in d}
    reach = [1.0] if bases else []
    for system, dots in chart.rows:
        if base := bases.get(system) if bases else 1.0:
            values = (value for dot in dots.values() for value in dot.figures.rate.quartiles)
            reach += [value / base for value in values if value > 0]
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
        times = f", {dot.figures.rate.median / base:.2f} times" if bases else ""
        at, q1, q3 = (place(value / base) for value in dot.figures.rate.quartiles)
        return ChartSpot(at, min(q1, q3), round(abs(q3 - q1), 2), times)

    return ChartView(
        f"times as fast as {baseline}" if bases else f"{chart.unit} per second",
        [
            (place(value), svg_pictures.format_tick(value))
            for value in _choose_ticks(low, low + wide)
        ],
        place(1.0) if bases else None,
        [[spot(s, dots.get(backend)) for backend in chart.backends] for s, dots in chart.rows],
    )


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return the values at which the axis has ticks: a few round numbers between 10 to the power
    ``low`` and 10 to the power ``high``."""
    ticks: list[float] = []
    for steps in STEPS:
        powers = range(math.floor(low), math.floor(high) + 1)
        every = -(-len(powers) // DECADES)
        values = [step * 10.0**power for power in powers[::every] for step in steps]
        ticks = [v for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]
        if len(ticks) >= FEWEST:
            break
    kept: list[float] = []
    for value in ticks:
        if not kept or math.log10(value / kept[-1]) >= APART * (high - low):
            kept.append(value)
    return kept
