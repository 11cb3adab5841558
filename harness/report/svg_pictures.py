"""Pictures of a report, drawn by matplotlib as SVG that is part of the page.

The colours are from Okabe and Ito ("Color Universal Design", 2008), for colour-blind readers. Each
backend also has its own marker. matplotlib draws lines and texts in the colour :data:`INK`, which
the page replaces by the colour of its own text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.output.printing import visible
from harness.report.inputs import TrainedWeights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
# The same markers as characters.
SIGNS = ("●", "■", "◆", "▲", "▼", "✚", "✖", "★")
# Line styles for the first, second, third and fourth use of the colours.
DASHES = ("-", "--", ":", "-.")
INK = "#010203"
WIDTH = 9.0
Draw = Callable[[Any], None]


@dataclass(frozen=True)
class Roof:
    """A cell in the roofline plot (speed against arithmetic intensity): FLOP per byte
    (``intensity``) and FLOP per second (``speed``)."""

    label: str
    intensity: float
    speed: float


@dataclass(frozen=True)
class Roofline:
    """The data of a roofline plot (speed against arithmetic intensity): the measured peak in
    FLOP/s, the measured memory bandwidth in bytes/s, and the cells."""

    peak: float
    bandwidth: float
    cells: Sequence[Roof]


def available() -> bool:
    """Return whether matplotlib (in the extra ``report``) is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_empty() -> None:
    """Draw an empty picture, to find out before a run whether pictures can be drawn. Raise
    :class:`ImportError` if matplotlib cannot be imported."""
    _draw_svg(lambda axes: None, 1.0, "nothing", "", columns=0)


def choose_looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return a dictionary from backend to its colour and marker, which are the same in all charts
    of a page."""
    found = {}
    for number, name in enumerate(names):
        colour, shape, _ = _series_look(number)
        found[name] = colour, SIGNS[shape]
    return found


def _series_look(number: int) -> tuple[str, int, str]:
    """Return the colour, the marker number and the line style of the series ``number`` of a plot.
    The first 32 series of a plot differ in at least one of them."""
    turn = number // len(COLOURS)
    shape, dashes = (number + turn) % len(MARKERS), DASHES[turn % len(DASHES)]
    return COLOURS[number % len(COLOURS)], shape, dashes


def roofline(roof: Roofline) -> str:
    """Draw the cells by FLOP per byte and FLOP per second, and above them the limit that the
    measured peak and bandwidth set."""

    def draw(axes: Axes) -> None:
        ridge = roof.peak / roof.bandwidth
        reach = [cell.intensity for cell in roof.cells]
        low, high = min([ridge, *reach]) / 4, max([ridge, *reach]) * 4
        axes.loglog([low, ridge, high], [low * roof.bandwidth, roof.peak, roof.peak], color=INK)
        for number, cell in enumerate(roof.cells):
            colour, shape, _ = _series_look(number)
            marker = MARKERS[shape]
            label = _visible_label(cell.label)
            axes.plot([cell.intensity], [cell.speed], marker, color=colour, label=label)
        axes.set_ylabel("operations per second")
        axes.grid(which="minor", color=INK, alpha=0.12)

    columns = 2 if len(roof.cells) <= len(COLOURS) else 0
    return _draw_svg(draw, 3.6, "roofline", "operations per byte", columns)


def speeds(unit: str, cells: Mapping[tuple[str, str], tuple[float, float, float]]) -> str:
    """Draw median speeds with bars from the lower to the upper quartile. ``unit`` is the label of
    the axis.

    ``cells`` maps (spec, backend) to (median, lower quartile, upper quartile).
    """
    systems = list(dict.fromkeys(system for system, _ in cells))

    def draw(axes: Axes) -> None:
        for number, name in enumerate(dict.fromkeys(backend for _, backend in cells)):
            colour, shape, _ = _series_look(number)
            own = [(system, speed) for (system, one), speed in cells.items() if one == name]
            rates = [rate for _, (rate, _, _) in own]
            bars = [[rate - q1 for _, (rate, q1, _) in own], [q3 - r for _, (r, _, q3) in own]]
            look: dict[str, Any] = {
                "fmt": MARKERS[shape],
                "color": colour,
                "label": _visible_label(name),
            }
            axes.errorbar(rates, [systems.index(system) for system, _ in own], xerr=bars, **look)
        axes.set_xscale("log")
        axes.set_yticks(range(len(systems)), [_visible_label(system) for system in systems])
        axes.invert_yaxis()

    return _draw_svg(draw, 1.2 + 0.3 * len(systems), "speeds", unit, columns=4)


def losses(trainings: Sequence[TrainedWeights]) -> str:
    """Draw the loss of each training by epoch, with several points per epoch, and the held-out loss
    as dots."""

    def draw(axes: Axes) -> None:
        for number, training in enumerate(trainings):
            colour, _, dashes = _series_look(number)
            places, values, held = [], [], []
            for at, epoch in enumerate(training.history.epochs):
                places += [at + (n + 1) / len(epoch.curve) for n in range(len(epoch.curve))]
                values += epoch.curve
                if epoch.held_out_loss is not None:
                    held.append((at + 1, epoch.held_out_loss))
            label = f"{training.spec} on {training.history.backend} ({training.name})"
            axes.plot(places, values, color=colour, linestyle=dashes, label=_visible_label(label))
            if held:
                axes.plot(*zip(*held, strict=True), "o", color=colour, markersize=4)
        axes.set_ylabel("loss")

    return _draw_svg(draw, 3.2, "loss", "epochs (dots: loss on held-out data)", columns=1)


def lines(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], limit: float | None = None
) -> str:
    """Draw one line for each series of points (x, y), e.g. the error by training step. The y axis
    is logarithmic. If ``limit`` is given, a horizontal line is drawn there."""

    def draw(axes: Axes) -> None:
        _plot(axes, series)
        axes.set_yscale("log")
        axes.locator_params("x", integer=True)
        if limit is not None:
            axes.axhline(limit, color=INK, linestyle="--", linewidth=1)

    return _draw_svg(draw, 3.0, title, title)


def trend(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    upgrades: Sequence[float],
    *,
    log: bool,
) -> str:
    """Draw one line for each series of points (run number, value), and a dashed vertical line at
    each position in ``upgrades`` (framework upgrades). With ``log``, the y axis is logarithmic."""

    def draw(axes: Axes) -> None:
        _plot(axes, series)
        if log:
            axes.set_yscale("log")
        _widen(axes, log)
        for place in upgrades:
            axes.axvline(place, color=INK, linestyle="--", linewidth=1)
        axes.locator_params("x", integer=True)

    return _draw_svg(draw, 3.0, title, title)


def _widen(axes: Axes, log: bool) -> None:
    """Make the y axis at least one digit high (or a factor of two if ``log``). On a shorter axis,
    noise would look like a large change."""
    low, high = axes.get_ylim()
    if log and high < 2 * low:
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 2**0.5, middle * 2**0.5)
    elif not log and high < low + 1:
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.5, middle + 0.5)


def _plot(axes: Axes, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for number, (name, points) in enumerate(series.items()):
        colour, shape, dashes = _series_look(number)
        axes.plot(
            *zip(*points, strict=True),
            marker=MARKERS[shape],
            markersize=4,
            linestyle=dashes,
            color=colour,
            label=_visible_label(name),
        )


def _visible_label(text: str) -> str:
    """Replace control characters by visible text, and put a space before a leading ``_``, because
    matplotlib hides labels that begin with ``_``."""
    text = visible(text)
    return f" {text}" if text.startswith("_") else text


def format_tick(value: float, _: float | None = None) -> str:
    """Return the label of a tick without an exponent, e.g. ``50 k`` or ``0.1``."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _draw_svg(draw: Draw, height: float, title: str, x_label: str, columns: int = 2) -> str:
    """Return a plot as SVG: the function ``draw`` draws the data, and this function adds axis
    label, grid and legend. The legend has ``columns`` columns; 0 means no legend."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    # Untrusted texts must not be parsed as formulas.
    settings: dict[str, object] = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 9,
    }
    settings |= {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
    settings |= {"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.linewidth": 0.6}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser draws the texts, and its fonts have more glyphs than matplotlib's fonts.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        canvas = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = canvas.subplots()
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        axes.set_xlabel(x_label)
        axes.grid(color=INK, alpha=0.12)
        if columns:
            place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
            axes.legend(**place, ncols=columns, frameon=False, fontsize=8, labelcolor=INK)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(format_tick)
                low, high = sorted(axis.get_view_interval())
                # Label the minor ticks if the axis spans at most about one power of ten.
                minor: Any = format_tick if high < 20 * low else NullFormatter()
                axis.set_minor_formatter(minor)
        written = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(written, metadata={"Date": None})
    text = written.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # The page sets the width, the height and the background.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.S)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
