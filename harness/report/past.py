"""The history of each cell: its digits over the runs as a line, with upgrades of its backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.results.cell import Cell
from harness.results.findings import PASSING, Verdict

# Of a line's picture, and digits that it shows at least from top to bottom.
WIDTH, HEIGHT, EDGE, LEAST = 260, 36, 5, 2.0
# Systems that stand open: those of which a cell changed its verdict or lost digits.
OPENED, LOST = 4, 0.5


@dataclass(frozen=True)
class Point:
    """What came of a cell in the check of a number."""

    run: int
    digits: float | None
    verdict: Verdict


@dataclass(frozen=True)
class DigitsLine:
    """A cell: the parts of its line as points of a polyline, crosses where it did not pass, and
    dashes with what was upgraded there; its digits at first and at last."""

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
    """The cells of one system, those that lost most digits first."""

    name: str
    told: str
    lines: Sequence[DigitsLine]
    opened: bool


def systems(
    cells: Mapping[Cell, Sequence[Point]], upgrades: Mapping[str, Mapping[int, str]], runs: int
) -> list[System]:
    """By system, those that got worst first. ``upgrades`` are by backend and number of check."""
    found: dict[str, list[DigitsLine]] = {}
    for cell, points in cells.items():
        line = _line(cell, points, upgrades.get(cell.backend, {}), runs)
        found.setdefault(cell.spec, []).append(line)
    ordered = sorted(found.items(), key=lambda item: -max(line.drop for line in item[1]))
    made: list[System] = []
    for name, lines in ordered:
        worse = sum(line.drop >= LOST for line in lines)
        told = f"{len(lines)} cells" if len(lines) > 1 else "1 cell"
        told += f", {worse} worse than before" if worse else ""
        opened = bool(worse) and len(made) < OPENED
        made.append(System(name, told, sorted(lines, key=lambda line: -line.drop), opened))
    return made


def _line(
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
    where = "" if cell.device == "cpu" else f" {cell.device}"
    return DigitsLine(
        f"{cell.backend} {cell.dtype} {cell.path}{where}",
        [" ".join(part) for part in parts if len(part) > 1],
        [(x(p.run), y(p.digits), _tone(p), f"check {p.run}: {_words(p)}") for p in points],
        [(x(run - 0.5), words) for run, words in upgrades.items() if run <= runs],
        _shown(points[0]),
        _shown(points[-1]),
        points[-1].verdict,
        _drop(points),
    )


def _drop(points: Sequence[Point]) -> float:
    """Digits that the last run has lost; as many as there can be where it passes no more, and a
    few where it never did, so that it stands before those that pass."""
    if points[-1].verdict not in PASSING:
        return 16.0 if any(point.verdict in PASSING for point in points) else LOST / 2
    best = [p.digits for p in points if p.digits is not None and p.verdict in PASSING]
    last = points[-1].digits
    return 0.0 if last is None or not best else max(best) - last


def _tone(point: Point) -> str:
    return "ok" if point.verdict in PASSING else "wrong"


def _words(point: Point) -> str:
    return point.verdict if point.digits is None else f"{point.verdict}, {point.digits:.1f} digits"


def _shown(point: Point) -> str:
    digits = "·" if point.digits is None else f"{point.digits:.1f}"
    return digits if point.verdict in PASSING else f"✗ {digits}"
