"""The history of the runs in a folder. For each cell, a line chart shows its correct digits over
time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.errors import UsageError
from harness.files import kinds
from harness.files.user_file import FileFault, displayed
from harness.report import speeds, svg_pictures
from harness.report.cells import count_verdicts
from harness.report.inputs import BenchRun, CheckRun, read_any
from harness.results.cell import Cell
from harness.results.findings import PASSING, Verdict, digits

# The size and margin of a line's picture, and the fewest digits that its height spans.
WIDTH, HEIGHT, EDGE, LEAST = 260, 36, 5, 2.0
# The maximum number of systems that are expanded, and the loss of digits that expands a system.
OPENED, LOST = 4, 0.5


@dataclass(frozen=True)
class Point:
    """The result of a cell in one run of ``check``. ``run`` is the position of this run in the
    order of start times, from 1."""

    run: int
    digits: float | None
    verdict: Verdict

    @property
    def text(self) -> str:
        """The number of correct digits as text, after ✗ if the cell did not pass."""
        digits = "·" if self.digits is None else f"{self.digits:.1f}"
        return digits if self.verdict in PASSING else f"✗ {digits}"


@dataclass(frozen=True)
class DigitsLine:
    """A line chart of one cell: its correct digits in all runs of ``check``.

    ``parts`` are the coordinates of the lines, ``dots`` the results, and ``dashes`` the vertical
    lines at framework upgrades. ``first`` and ``last`` are the digits in the first and in the last
    run, and ``drop`` is the number of digits lost.
    """

    label: str
    parts: Sequence[str]
    dots: Sequence[tuple[float, float, str, str]]
    dashes: Sequence[tuple[float, str]]
    first: str
    last: str
    verdict: str
    drop: float


@dataclass(frozen=True)
class System:
    """The line charts of one spec; the cell that lost most digits comes first. If ``opened`` is
    True, the page shows the charts at once, otherwise after a click."""

    name: str
    summary: str
    lines: Sequence[DigitsLine]
    opened: bool


def systems(
    cells: Mapping[Cell, Sequence[Point]], upgrades: Mapping[str, Mapping[int, str]], runs: int
) -> list[System]:
    """Return the line charts, one object per spec. The spec with the largest loss of digits comes
    first.

    ``cells`` has the results of each cell, and ``runs`` is the number of runs. ``upgrades`` maps a
    backend to its framework upgrades: from the number of the first run after the upgrade to a text.
    """
    by_spec: dict[str, list[DigitsLine]] = {}
    for cell, points in cells.items():
        line = _make_line(cell, points, upgrades.get(cell.backend, {}), runs)
        by_spec.setdefault(cell.spec, []).append(line)
    ordered = sorted(by_spec.items(), key=lambda item: -max(line.drop for line in item[1]))
    summaries: list[System] = []
    for name, lines in ordered:
        worse = sum(line.drop >= LOST for line in lines)
        text = f"{len(lines)} cells" if len(lines) > 1 else "1 cell"
        text += f", {worse} worse than before" if worse else ""
        opened = bool(worse) and len(summaries) < OPENED
        summaries.append(System(name, text, sorted(lines, key=lambda line: -line.drop), opened))
    return summaries


def _make_line(
    cell: Cell, points: Sequence[Point], upgrades: Mapping[int, str], runs: int
) -> DigitsLine:
    values = [point.digits for point in points if point.digits is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    middle, wide = (low + high) / 2, max(high - low, LEAST)

    def x(run: float) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * (run - 1) / max(1, runs - 1), 1)

    def y(digits: float | None) -> float:
        share = 0.0 if digits is None else 0.5 + (digits - middle) / wide
        return round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share, 1)

    parts: list[list[str]] = [[]]
    before = 0
    for point in points:
        if point.digits is None or (before and point.run > before + 1):
            parts.append([])
        if point.digits is not None:
            parts[-1].append(f"{x(point.run)},{y(point.digits)}")
        before = point.run
    dots = []
    for point in points:
        tone = "ok" if point.verdict in PASSING else "wrong"
        digits = "" if point.digits is None else f", {point.digits:.1f} digits"
        words = f"check {point.run}: {point.verdict}{digits}"
        dots.append((x(point.run), y(point.digits), tone, words))
    where = "" if cell.device == "cpu" else f" {cell.device}"
    return DigitsLine(
        f"{cell.backend} {cell.dtype} {cell.path}{where}",
        [" ".join(part) for part in parts if len(part) > 1],
        dots,
        [(x(run - 0.5), words) for run, words in upgrades.items() if run <= runs],
        points[0].text,
        points[-1].text,
        points[-1].verdict,
        _count_lost_digits(points),
    )


def _count_lost_digits(points: Sequence[Point]) -> float:
    """Return how many digits the last run has less than the best run that passed.

    If the last run did not pass, but an earlier run did, the loss is 16. If no run passed, the loss
    is half of :data:`LOST`, so that the cell comes before cells that still pass.
    """
    if points[-1].verdict not in PASSING:
        return 16.0 if any(point.verdict in PASSING for point in points) else LOST / 2
    best = [p.digits for p in points if p.digits is not None and p.verdict in PASSING]
    last = points[-1].digits
    return 0.0 if last is None or not best else max(best) - last


# The maximum number of lines that are distinguishable in one picture.
MOST_LINES = len(svg_pictures.COLOURS)


@dataclass(frozen=True)
class RunRow:
    """A table row about a run: its start, how many cells have each verdict, and the framework
    upgrades just before the run."""

    started: str
    counts: str
    upgrade: str


@dataclass
class RunHistory:
    """The runs in a folder, oldest first.

    - ``rows`` has a table row for each run.
    - ``digits`` maps a backend, and ``rates`` a timed cell, to a line of points: (number of the
      run, value). The values are correct digits, or speeds.
    - ``upgrades`` are the positions of framework upgrades between the runs, e.g. 2.5. ``upgraded``
      has the texts of the upgrades of each backend.
    - ``cells`` has the results of each cell, and ``checks`` is the number of runs of ``check``.
    """

    rows: list[RunRow] = field(default_factory=list)
    digits: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    rates: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    upgrades: list[float] = field(default_factory=list)
    cells: dict[Cell, list[Point]] = field(default_factory=dict)
    # For each backend: check number, and the upgrade before that check.
    upgraded: dict[str, dict[int, str]] = field(default_factory=dict)
    checks: int = 0

    def systems(self) -> list[System]:
        """Return the line charts of all cells, one object per spec."""
        return systems(self.cells, self.upgraded, self.checks)

    def drawn(self) -> list[str]:
        """Return two pictures as SVG, if there are data for them: the digits of each backend's
        least accurate cell, and the speeds that changed most."""
        found = []
        if any(len(points) > 1 for points in self.digits.values()):
            title = "run; digits of each backend's worst cell in float32 (dashed: an upgrade)"
            found.append(svg_pictures.trend(title, self.digits, self.upgrades, log=False))
        moving = sorted(self.rates.items(), key=lambda item: -_largest_factor(item[1]))
        several = {name: points for name, points in moving[:MOST_LINES] if len(points) > 1}
        if several:
            title = "run; speed of the cells that changed most (dashed: an upgrade)"
            found.append(svg_pictures.trend(title, several, self.upgrades, log=True))
        return found


def history(folder: Path) -> RunHistory:
    """Return the history of the runs in a folder: read every record file and every file of speeds,
    and skip other files.

    Raises:
        UsageError: the path is not a folder, or the folder contains no runs.
        HarnessError: a file is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{displayed(folder)} is not a folder: give a folder with files of older runs"
        )
    runs: list[CheckRun | BenchRun] = []
    for path in sorted(folder.iterdir()):
        kind = ""
        with contextlib.suppress(FileFault):  # an unreadable file is not a run
            kind = kinds.describe(path) if path.is_file() else ""
        if kind in (kinds.RECORDS.name, kinds.RESULTS.name):
            run = read_any(path)
            assert isinstance(run, CheckRun | BenchRun)
            runs.append(run)
    if not runs:
        raise UsageError(f"{displayed(folder)} contains no records or results of earlier runs")
    found, before = RunHistory(), dict[str, str]()
    for number, run in enumerate(sorted(runs, key=lambda run: run.started), start=1):
        changed = {
            name: f"{before[name]} became {version}"
            for name, version in run.versions.items()
            if before.get(name, version) != version
        }
        before |= run.versions
        for backend, words in changed.items():
            at = found.upgraded.setdefault(backend, {})
            at[found.checks + 1] = "; ".join(filter(None, (at.get(found.checks + 1), words)))
        if changed:
            found.upgrades.append(number - 0.5)
        _add_run(found, number, run, ", ".join(dict.fromkeys(changed.values())))
    return found


def _add_run(history: RunHistory, number: int, run: CheckRun | BenchRun, upgrade: str) -> None:
    if isinstance(run, CheckRun):
        history.rows.append(RunRow(run.started, count_verdicts(run.cells.values()), upgrade))
        worst: dict[str, float] = {}
        history.checks += 1
        for cell, result in run.cells.items():
            value = digits(result.findings)
            history.cells.setdefault(cell, []).append(Point(history.checks, value, result.verdict))
            if value is not None and cell.dtype == "float32" and result.verdict in PASSING:
                worst[cell.backend] = min(value, worst.get(cell.backend, value))
        for backend, value in worst.items():
            history.digits.setdefault(backend, []).append((number, value))
        return
    history.rows.append(RunRow(run.started, speeds.count_speeds([run.file]), upgrade))
    for speed in run.file.benchmarks:
        name = speed.fullname.removeprefix("lesson6/")
        history.rates.setdefault(name, []).append((number, speed.extra_info.rate.median))


def _largest_factor(points: Sequence[tuple[float, float]]) -> float:
    """Return the largest factor by which a value differs from the value before it. ``points`` has
    pairs (run number, value)."""
    pairs = pairwise(points)
    return max((max(a / b, b / a) for (_, a), (_, b) in pairs if a > 0 and b > 0), default=0.0)
