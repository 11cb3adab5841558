"""Runs one after another: a folder of record files and results is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.errors import UsageError
from harness.files import kinds
from harness.files.user_file import FileFault, displayed
from harness.report import speeds, svg_pictures
from harness.report.cells import counted
from harness.report.inputs import BenchRun, CheckRun, read_any
from harness.report.past import Point, System, systems
from harness.results.cell import Cell
from harness.results.findings import PASSING, digits

# Lines that one picture can tell apart.
MOST_LINES = len(svg_pictures.COLOURS)


@dataclass(frozen=True)
class RunRow:
    """A run: when, what came of it, and what had another version than in the run before."""

    started: str
    counts: str
    upgrade: str


@dataclass
class RunHistory:
    """The runs of a folder, the oldest first."""

    rows: list[RunRow] = field(default_factory=list)
    digits: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    rates: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    upgrades: list[float] = field(default_factory=list)
    cells: dict[Cell, list[Point]] = field(default_factory=dict)
    # By backend and the number among the checks, what was upgraded before it.
    upgraded: dict[str, dict[int, str]] = field(default_factory=dict)
    checks: int = 0

    def systems(self) -> list[System]:
        """The lines of all cells, by system."""
        return systems(self.cells, self.upgraded, self.checks)

    def drawn(self) -> list[str]:
        """The pictures: the worst cell of each backend, and the speeds that moved the most."""
        found = []
        if any(len(points) > 1 for points in self.digits.values()):
            title = "run; digits of each backend's worst cell in float32 (dashed: an upgrade)"
            found.append(svg_pictures.trend(title, self.digits, self.upgrades, log=False))
        moving = sorted(self.rates.items(), key=lambda item: -_moved(item[1]))
        several = {name: points for name, points in moving[:MOST_LINES] if len(points) > 1}
        if several:
            title = "run; speed, of the cells that moved the most (dashed: an upgrade)"
            found.append(svg_pictures.trend(title, several, self.upgrades, log=True))
        return found


def history(folder: Path) -> RunHistory:
    """Read every record file and every file of results in a folder; others are passed over.

    Raises:
        UsageError: it is not a folder, or holds no runs.
        HarnessError: a file is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{displayed(folder)} is not a folder: give one with the files of older runs"
        )
    runs: list[CheckRun | BenchRun] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and _kind(path) in (kinds.RECORDS.name, kinds.RESULTS.name):
            run = read_any(path)
            assert isinstance(run, CheckRun | BenchRun)
            runs.append(run)
    if not runs:
        raise UsageError(f"{displayed(folder)} holds no records and no results of earlier runs")
    found, before = RunHistory(), dict[str, str]()
    for number, run in enumerate(sorted(runs, key=lambda run: run.started), start=1):
        changed = _upgrades(before, run.versions)
        before |= run.versions
        for backend, words in changed.items():
            at = found.upgraded.setdefault(backend, {})
            at[found.checks + 1] = "; ".join(filter(None, (at.get(found.checks + 1), words)))
        if changed:
            found.upgrades.append(number - 0.5)
        _add(found, number, run, ", ".join(dict.fromkeys(changed.values())))
    return found


def _kind(path: Path) -> str:
    try:
        return kinds.described(path)
    except FileFault:  # unreadable, and so no run of ours
        return ""


def _upgrades(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """By backend, the change of its version in words."""
    return {
        name: f"{before[name]} became {version}"
        for name, version in now.items()
        if before.get(name, version) != version
    }


def _add(found: RunHistory, number: int, run: CheckRun | BenchRun, upgrade: str) -> None:
    if isinstance(run, CheckRun):
        found.rows.append(RunRow(run.started, counted(run.cells.values()), upgrade))
        worst: dict[str, float] = {}
        found.checks += 1
        for cell, result in run.cells.items():
            value = digits(result.findings)
            found.cells.setdefault(cell, []).append(Point(found.checks, value, result.verdict))
            if value is not None and cell.dtype == "float32" and result.verdict in PASSING:
                worst[cell.backend] = min(value, worst.get(cell.backend, value))
        for backend, value in worst.items():
            found.digits.setdefault(backend, []).append((number, value))
        return
    found.rows.append(RunRow(run.started, speeds.counted([run.file]), upgrade))
    for speed in run.file.benchmarks:
        name = speed.fullname.removeprefix("lesson6/")
        found.rates.setdefault(name, []).append((number, speed.extra_info.rate.median))


def _moved(points: Sequence[tuple[float, float]]) -> float:
    """The largest factor between two neighbours."""
    pairs = pairwise(points)
    return max((max(a / b, b / a) for (_, a), (_, b) in pairs if a > 0 and b > 0), default=0.0)
