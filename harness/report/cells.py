"""The report's table of verdicts. A row is a spec, a column is a backend, and an entry shows the
verdict, the correct digits and the failed check."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.findings import (
    MARKS,
    MEASURING,
    PASSING,
    VERDICTS,
    Finding,
    Verdict,
    digits,
    gravest,
    select_failed,
)

# The powers of ten below the tolerance from which on a cell has full headroom.
MOST_HEADROOM = 2.5
# The sign of verdicts that are kept from earlier runs.
KEPT = "°"
GROUPS: Mapping[str, str] = {
    "agree": "agrees",
    "float32-precision": "known",
    "known-difference": "known",
    "not-applicable": "silent",
    "unsupported": "silent",
    "differ": "differs",
}


class Judged:
    """Base class of objects with a ``verdict`` that the report's table of verdicts shows, e.g. the
    verdict of one dtype."""

    verdict: Verdict

    @property
    def group(self) -> str:
        """The group to which the verdict belongs, e.g. "differs" or "broken". It is the CSS class
        that gives the entry its colour."""
        return GROUPS.get(self.verdict, "broken")

    @property
    def mark(self) -> str:
        """A short label of the verdict; empty for "agree"."""
        return MARKS[self.verdict].lower()


@dataclass(frozen=True)
class DtypePart(Judged):
    """The result of one dtype in a table entry (a spec on a backend).

    ``headroom`` goes from 0 (error at or above the tolerance) to 1 (error far below the tolerance).
    ``digits`` is the number of correct digits as text. If a check failed, ``check`` is its name,
    and ``error`` is the text of its largest error.
    """

    dtype: str
    verdict: Verdict
    digits: str
    headroom: float
    check: str = ""
    error: str = ""


@dataclass(frozen=True)
class MatrixEntry(Judged):
    """An entry of the table of verdicts: the results of a spec on a backend. ``parts`` has one item
    for each dtype, and ``verdict`` is the gravest of their verdicts.

    ``number`` identifies the entry on the page.
    """

    number: int
    spec: str
    backend: str
    path: str
    verdict: Verdict
    parts: Sequence[DtypePart]
    results: Sequence[CellResult]

    @property
    def same_verdict(self) -> bool:
        """True if the results of all dtypes have the same verdict."""
        return len({part.verdict for part in self.parts}) == 1

    @property
    def verdict_text(self) -> str:
        """The verdict if all dtypes agree on it and no check failed; otherwise the verdict and the
        failed check of each dtype."""
        if self.same_verdict and not any(part.check for part in self.parts):
            return self.verdict
        return ", ".join(
            f"{part.dtype} {part.verdict}" + (f" ({part.check}{part.error})" if part.check else "")
            for part in self.parts
        )

    @property
    def kept_sign(self) -> str:
        """The sign ° (:data:`KEPT`) if a result of this entry is kept from an earlier run,
        otherwise an empty text."""
        return KEPT if any(result.remembered for result in self.results) else ""

    @property
    def headroom(self) -> float:
        """The smallest headroom of all dtypes, from 0 (error at or above the tolerance) to 1 (far
        below)."""
        return min((part.headroom for part in self.parts), default=0.0)


@dataclass(frozen=True)
class Matrix:
    """A table of verdicts for one execution path and device. ``rows`` has pairs: a spec, and a list
    with its entry for each of the ``backends`` (None if the cell was not run)."""

    path: str
    device: str
    backends: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixEntry | None]]]

    @property
    def title(self) -> str:
        """The execution path, followed by the device if it is not the CPU, e.g. "native on
        cuda"."""
        return self.path if self.device == "cpu" else f"{self.path} on {self.device}"


def make_matrices(cells: Mapping[Cell, CellResult]) -> list[Matrix]:
    """Return one table of verdicts for each combination of execution path and device, in the order
    of the run."""
    tables: list[Matrix] = []
    number = 0
    for path, device in dict.fromkeys((c.path, c.device) for c in cells):
        own = {c: r for c, r in cells.items() if (c.path, c.device) == (path, device)}
        backends = sorted({cell.backend for cell in own})
        by_place: dict[tuple[str, str], list[CellResult]] = {}
        for cell, result in own.items():
            by_place.setdefault((cell.spec, cell.backend), []).append(result)
        rows = []
        for spec in dict.fromkeys(cell.spec for cell in own):
            row: list[MatrixEntry | None] = []
            for backend in backends:
                if results := by_place.get((spec, backend)):
                    results.sort(key=lambda r: r.cell.dtype)
                    parts = [_make_part(result) for result in results]
                    verdict = gravest([part.verdict for part in parts])
                    row.append(MatrixEntry(number, spec, backend, path, verdict, parts, results))
                else:
                    row.append(None)
                number += 1
            rows.append((spec, row))
        tables.append(Matrix(path, device, backends, rows))
    return tables


def _make_part(result: CellResult) -> DtypePart:
    number = digits(result.findings)
    shown = "" if number is None else f"{number:.1f}"
    part = DtypePart(result.cell.dtype, result.verdict, shown, compute_headroom(result.findings))
    failures = select_failed(result.findings)
    if not failures:
        return part
    first = next((f for f in failures if f.worst), failures[0])
    error = f": error {first.worst.error:.1e}" if first.worst else ""
    return replace(part, check=first.check, error=error)


def compute_headroom(findings: Iterable[Finding]) -> float:
    """Return a number from 0 to 1 that says how far the largest error of a cell is below its
    tolerance.

    It is 0 if the error is at the tolerance or above it. It is 1 if the error is 0, or smaller than
    the tolerance by :data:`MOST_HEADROOM` powers of ten or more.
    """
    ratios = [
        error_share(f.worst) for f in findings if f.check in MEASURING and f.worst is not None
    ]
    nearest = max(ratios, default=0.0)
    if not nearest <= 1:
        return 0.0
    decades = MOST_HEADROOM if nearest == 0 else -math.log10(nearest)
    return min(1.0, decades / MOST_HEADROOM)


def error_share(deviation: Deviation) -> float:
    """Return the error of a tensor divided by its tolerance; infinity if the tolerance is 0."""
    return deviation.error / deviation.tolerance if deviation.tolerance else math.inf


def count_verdicts(results: Iterable[CellResult]) -> str:
    """Return how many cells have each verdict, e.g. ``142 agree · 1 differ``; the gravest verdict
    comes last."""
    counts = Counter(result.verdict for result in results)
    return " · ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])


def list_failing(cells: Mapping[Cell, CellResult]) -> list[CellResult]:
    """Return the cells that do not pass: first the cells with a difference, then the others, both
    in the order of the run."""
    failures = [result for result in cells.values() if result.verdict not in PASSING]
    return sorted(failures, key=lambda result: result.verdict != "differ")


def list_known_differences(cells: Mapping[Cell, CellResult]) -> list[tuple[str, list[str]]]:
    """Return pairs for the known differences (accepted in ``known_differences.yaml``) that
    occurred: the text of the difference, and the names of its cells."""
    by_text: dict[str, list[str]] = {}
    for result in cells.values():
        for finding in result.findings:
            if finding.verdict == "known-difference":
                by_text.setdefault(finding.detail, []).append(str(result.cell))
    return [(words, list(dict.fromkeys(cells))) for words, cells in by_text.items()]
