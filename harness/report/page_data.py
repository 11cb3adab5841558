"""What the page's script shows of cells and charts: so small that thousands of cells fit in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.oracle.tolerance import Deviation
from harness.output.printing import visible
from harness.report.cells import MatrixEntry, share
from harness.report.speed_charts import ChartView, ShownChart
from harness.results.cell import CellResult
from harness.results.findings import PASSING, Finding


class Names:
    """Texts by number, so that each stands in the page once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a text, as it is shown."""
        return self._numbers.setdefault(visible(name), len(self._numbers))

    @property
    def all(self) -> list[str]:
        """The texts in the order of their numbers."""
        return list(self._numbers)


def page_data(entries: Iterable[MatrixEntry], speeds: Iterable[ShownChart] = ()) -> str:
    """The data behind cells and charts as JSON that may stand inside of an element ``script``.

    ``names`` are texts that the rest gives by number; ``entries`` has, by an entry's number, one
    object a dtype: its checks as rows (check, verdict, error, yardstick, tolerance, worst tensor,
    held, seconds, detail, spread, growth), shortened from the end. ``charts`` has the views of each
    chart by baseline.
    """
    names = Names()
    found = {
        str(entry.number): {
            "spec": visible(entry.spec),
            "backend": visible(entry.backend),
            "path": visible(entry.path),
            "dtypes": [_cell(result, names) for result in entry.results],
        }
        for entry in entries
    }
    views = [{visible(name): _view(view) for name, view in chart.views.items()} for chart in speeds]
    return embedded({"names": names.all, "entries": found, "charts": views})


def _view(view: ChartView) -> dict[str, Any]:
    return {**view.record(), "label": visible(view.label)}


def embedded(data: Any) -> str:
    """JSON in which nothing can end the element that it stands in, or begin another."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _cell(result: CellResult, names: Names) -> dict[str, Any]:
    worsts = [finding.worst for finding in result.findings]
    kept = f"; the verdict is kept from {result.since}" if result.remembered else ""
    nearest = max((share(worst) for worst in worsts if worst), default=None)
    return {
        "dtype": visible(result.cell.dtype),
        "verdict": result.verdict,
        "version": names.number(f"{result.version}{kept}"),
        "layers": names.number(_by_kind(result.layers)),
        "seconds": round(result.seconds, 2),
        "location": visible(result.location),
        "checks": [
            _row(finding, worst, names, nearest)
            for finding, worst in zip(result.findings, worsts, strict=True)
        ],
    }


def _by_kind(layers: Mapping[str, str]) -> str:
    """What ran of which layers: ``gru: GRU; embed, out: equations``."""
    named: dict[str, list[str]] = {}
    for layer, kind in layers.items():
        named.setdefault(kind, []).append(layer)
    if len(named) == 1:
        return f"all layers: {next(iter(named))}"
    # What ran as equations is the rest.
    ordered = sorted(named.items(), key=lambda item: item[0] == "equations")
    return "; ".join(f"{', '.join(found)}: {kind}" for kind, found in ordered)


def _row(
    finding: Finding, worst: Deviation | None, names: Names, nearest: float | None
) -> list[Any]:
    numbers: list[Any] = [None] * 3
    if worst is not None:
        numbers = [_short(n) for n in (worst.error, worst.yardstick, worst.tolerance)]
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
    # The histogram and the growth of what does not pass, and of a cell's nearest check.
    if worst is not None and (finding.verdict not in PASSING or share(worst) == nearest):
        row[-2] = list(worst.spread)
    row[-1] = [[n, _short(e), _short(t)] for n, e, t in finding.growth]
    while row and row[-1] in ([], "", 0, None):
        row.pop()
    return row


def _short(number: float) -> Any:
    """A number in three digits; what JSON cannot say as a text."""
    return float(f"{number:.3g}") if math.isfinite(number) else str(number)
