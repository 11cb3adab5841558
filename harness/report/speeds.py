"""Speeds of a bench file as a page shows them: by mode and sizes, system and backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import several
from harness.results.speeds import Figures, NoSpeed, Parameters, SpeedFile, Timed


@dataclass(frozen=True)
class Dot:
    """A cell with a speed: the median over the rounds and the quartiles, in units a second.

    ``times`` is how many times as fast as the baseline it is; None without one.
    """

    backend: str
    rate: float
    q1: float
    q3: float
    figures: Figures
    times: float | None


@dataclass(frozen=True)
class Chart:
    """All systems in one mode at one batch and sizes. ``refused`` are cells without a speed, and
    why."""

    title: str
    unit: str
    backends: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Dot]]]
    refused: Sequence[NoSpeed]


@dataclass(frozen=True)
class Roof:
    """Where a cell stands under what the machine can do: FLOP a byte and FLOP a second."""

    label: str
    intensity: float
    speed: float


@dataclass(frozen=True)
class Roofline:
    """The measured peak (FLOP/s) and bandwidth (bytes/s), and the cells below them."""

    peak: float
    bandwidth: float
    cells: Sequence[Roof]


def counted(files: Sequence[SpeedFile]) -> str:
    """``12 speeds, 1 refused``, of some files together."""
    refused = sum(len(file.harness.without_speed) for file in files)
    told = several(sum(len(file.benchmarks) for file in files), "speed")
    return f"{told}, {refused} refused" if refused else told


def charts(file: SpeedFile, baseline: str | None, of: str = "") -> list[Chart]:
    """One for each mode, batch and sizes; speeds beside those of the baseline where it has one.

    ``of`` tells the file from others, in the titles.
    """
    title = _titles(file, of)
    found: dict[str, list[Timed]] = {}
    for speed in file.benchmarks:
        found.setdefault(title(speed.params), []).append(speed)
    refused: dict[str, list[NoSpeed]] = {}
    for cell in file.harness.without_speed:
        refused.setdefault(title(cell.params), []).append(cell)
    return [
        _chart(name, found.get(name, []), refused.get(name, []), baseline)
        for name in dict.fromkeys([*found, *refused])
    ]


def _titles(file: SpeedFile, of: str) -> Callable[[Parameters], str]:
    """Gives the title of the chart that a cell stands in: with what is not the same in all cells,
    so that two cells of a system and a backend never have one place."""
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


def _chart(
    title: str, speeds: Sequence[Timed], refused: Sequence[NoSpeed], baseline: str | None
) -> Chart:
    by_system: dict[str, list[Timed]] = {}
    for speed in speeds:
        by_system.setdefault(_system(speed, speeds), []).append(speed)
    rows = []
    for system, cells in by_system.items():
        rates = {cell.params.backend: cell.extra_info.rate.median for cell in cells}
        rows.append((system, [_dot(cell, rates.get(baseline or "")) for cell in cells]))
    units = dict.fromkeys(speed.extra_info.rate.unit for speed in speeds)
    backends = sorted({s.params.backend for s in speeds} | {r.params.backend for r in refused})
    return Chart(title, " or ".join(units), backends, rows, refused)


def doubted(chart: Chart) -> list[tuple[str, list[str]]]:
    """Why speeds are not to be relied on, each with the cells of which it is said."""
    found: dict[str, list[str]] = {}
    for system, dots in chart.rows:
        for dot in dots:
            for doubt in dot.figures.doubts:
                found.setdefault(doubt, []).append(f"{system} on {dot.backend}")
    return [*found.items()]


def _system(speed: Timed, among: Sequence[Timed]) -> str:
    name = speed.params.spec.removeprefix("lesson6/")
    times = {s.params.time for s in among if s.params.spec == speed.params.spec}
    return f"{name} t{speed.params.time}" if len(times) > 1 else name


def _dot(speed: Timed, base: float | None) -> Dot:
    figures = speed.extra_info
    rate = figures.rate
    times = rate.median / base if base else None
    return Dot(speed.params.backend, rate.median, rate.q1, rate.q3, figures, times)


def roofline(file: SpeedFile) -> Roofline | None:
    """The cells under the roof; None where no cell has all figures for it."""
    peaks, bandwidths, cells = [], [], []
    for speed in file.benchmarks:
        figures = speed.extra_info
        peak, width = _figure(figures.peak, "large"), _figure(figures.bandwidth, "measured")
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


def _figure(figures: Mapping[str, object], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None
