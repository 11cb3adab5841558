"""Tables of speeds: one table for each combination of mode, batch size and other sizes, with
footnotes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from harness.errors import with_trace
from harness.output.table import Grid, thousands
from harness.timing.contestant import TimedResult
from harness.timing.noise import beyond_noise, is_unreliable, spread_of


def make_tables(results: Sequence[TimedResult]) -> tuple[list[Grid], list[str]]:
    """Return one table for each combination of mode, batch size and other sizes, and the footnotes
    of all tables."""
    notes: list[str] = []
    families: dict[str, list[TimedResult]] = {}
    for result in results:
        if not result.entry.tuning:
            cell = result.cell
            sizes = "".join(f", {name} {size}" for name, size in sorted(cell.sizes.items()))
            title = f"{cell.mode}, batch {cell.batch}{sizes}"
            families.setdefault(title, []).append(result)
    tables = [_make_grid(title, cells, notes) for title, cells in families.items()]
    for result in results:
        # Settings are listed below the tables, so a cell with a setting has no row. If the cell has
        # no speed, a footnote says why.
        if result.entry.tuning and not result.measured:
            _footnote_number(result, notes, result.reason)
    return tables, notes


def _make_grid(title: str, cells: Sequence[TimedResult], notes: list[str]) -> Grid:
    backends = list(dict.fromkeys(c.cell.backend for c in cells))
    grid = Grid(title, ["system", *backends])
    rows: dict[str, dict[str, TimedResult]] = {}
    for cell in cells:
        system, time = cell.cell.spec.removeprefix("lesson6/"), cell.cell.time
        times = {c.cell.time for c in cells if c.cell.spec == cell.cell.spec}
        row = f"{system} t{time}" if len(times) > 1 else system
        rows.setdefault(row, {})[cell.cell.backend] = cell
    for name, of in rows.items():
        best = _find_best(list(of.values()))
        texts = [_format_cell(of[b], of[b] in best, notes) if b in of else "-" for b in backends]
        grid.rows.append([name, *texts])
    return grid


def _find_best(cells: Sequence[TimedResult]) -> list[TimedResult]:
    """Return the cells to mark as fastest: the fastest cell, and the reliable cells whose speed
    differs from it only by noise.

    Return an empty list if the fastest cell is unreliable, or if only one cell has a speed.
    """
    measured = [c for c in cells if c.measured]
    if len(measured) < 2:
        return []
    first = min(measured, key=lambda c: median(c.seconds))
    if is_unreliable(first.record.doubts):
        return []
    near = [c for c in measured if c is first or not beyond_noise(first.seconds, c.seconds)]
    return [c for c in near if not is_unreliable(c.record.doubts)]


def _format_cell(result: TimedResult, best: bool, notes: list[str]) -> str:
    """Format a cell as text, e.g. ``*123 ±4%``: the speed, after ``*`` if ``best``, then the path
    and the correct digits. If there is no speed, the text says why. Long reasons are added to
    ``notes``, the footnotes."""
    if not result.measured:
        return f"{result.status} [{_footnote_number(result, notes, result.reason)}]"
    rate = result.record.rate
    # A single round has no spread.
    within = f"±{spread_of(rate):.0%}" if len(result.seconds) > 1 else "one round"
    speed = f"{'*' if best else ''}{thousands(rate['median'])} {within}"
    for doubt in result.record.doubts:
        speed += f" [{_footnote_number(result, notes, doubt)}]"
    many = result.record.many or 1
    path = f"{result.record.path}{f' x{many}' if many > 1 else ''}"
    # The digits of the worst tensor. Tensors that consist of rounding errors are ignored.
    digits = result.record.values["digits"]
    right = "digits unknown" if digits is None else f"{digits:.1f} digits"
    return f"{speed}\n{path}\n{right}"


def _footnote_number(result: TimedResult, notes: list[str], reason: str) -> int:
    text = f"{result.entry.label}: {reason}"
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def list_tracebacks(results: Sequence[TimedResult]) -> list[str]:
    """Return the tracebacks of cells without a speed. A traceback that a backend has several times
    is returned once."""
    found = {(r.entry.label, r.traceback): r for r in results if r.traceback}
    return [with_trace(f"{label}: {r.reason}", r.traceback) for (label, _), r in found.items()]


def make_details_table(results: Sequence[TimedResult]) -> Grid:
    """Return a table with further measurements of every cell that has a speed, e.g. latency, FLOP/s
    and memory."""
    columns: dict[str, Callable[[TimedResult], str]] = {
        "latency ms": lambda r: f"{r.record.latency['median'] * 1e3:.3g}",
        "step ms": lambda r: f"{r.record.step['median'] * 1e3:.3g}",
        "GFLOP/s": lambda r: f"{(r.record.flops_per_second or 0.0) / 1e9:.3g}",
        "of peak": lambda r: _format_share(r, "share_of_peak"),
        "own peak": lambda r: _format_share(r, "share_of_own_peak"),
        "compile s": lambda r: f"{r.record.compile:.2f}",
        "first s": lambda r: f"{r.record.first:.2f}",
        "warm-up": lambda r: (
            f"{r.record.warm_up['steps']}{'' if r.record.warm_up['steady'] else ' unsteady'}"
        ),
        "MiB": lambda r: _format_mebibytes(r.record.memory["resident"]),
    }
    grid = Grid("further measurements", ["cell", *columns], alike=False)
    for result in results:
        if result.measured:
            cell = result.cell
            name = f"{cell.spec.removeprefix('lesson6/')} {cell.backend} {cell.mode} b{cell.batch}"
            grid.rows.append([name, *(show(result) for show in columns.values())])
    return grid


def _format_mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f}"


def _format_share(result: TimedResult, name: str) -> str:
    share = getattr(result.record, name)
    return "-" if share is None else f"{share:.0%}"
