"""Who stands apart from the others: backends' outputs compared pairwise, without the oracle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median_low

import numpy as np

from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING

FEWEST = 3
"""Backends of which one can stand apart."""

Group = tuple[str, str, str, str]


def group_of(cell: Cell) -> Group:
    """All but the backend of a cell: cells that share it are compared."""
    return (cell.spec, cell.dtype, cell.path, cell.device)


def group_name(cell: Cell) -> tuple[str, ...]:
    """What tells a group from all others, what its cost depends on first."""
    return (f"{cell.dtype} {cell.path}", cell.spec, cell.device)


def outlier(members: Sequence[CellResult]) -> str:
    """A line on the backend that stands apart, of cells of one group with outputs; or none."""
    members = [m for m in members if m.outputs]
    if len(members) < FEWEST or all(m.verdict in PASSING for m in members):
        return ""
    # The lower median: of three, the two that agree are near one and far from the other.
    median = {
        m.cell.backend: median_low([_distance(m, o) for o in members if o is not m])
        for m in members
    }
    first, second, *_ = sorted(median, key=median.__getitem__, reverse=True)
    if median[first] <= 100 * max(median[second], 1e-17):
        return ""
    cell = members[0].cell
    return (
        f"{cell.spec}, {cell.dtype}: {first} is the outlier: its outputs are "
        f"{median[first]:.1e} from the others', which are within "
        f"{median[second]:.1e} of each other"
    )


class Outliers:
    """The lines of a run, found as its cells end: outputs are kept until their group is whole."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._left: dict[Group, int] = {}
        for cell in cells:
            self._left[group_of(cell)] = self._left.get(group_of(cell), 0) + 1
        # Of a group that is too small nothing need be kept at all.
        self._wanted: dict[Group, list[CellResult]] = {
            group: [] for group, count in self._left.items() if count >= FEWEST
        }
        self.lines: dict[Group, str] = dict.fromkeys(self._wanted, "")

    def ended(self, result: CellResult) -> None:
        """Take the outputs of a cell that has ended, and let go of those nobody needs any more."""
        group = group_of(result.cell)
        self._left[group] -= 1
        members = self._wanted.get(group)
        if members is None:
            result.outputs = {}
            return
        members.append(result)
        if not self._left[group]:
            self.lines[group] = outlier(members)
            for member in members:
                member.outputs = {}
            del self._wanted[group]


def _distance(one: CellResult, other: CellResult) -> float:
    """The largest gap over the size of the larger; infinite where one is not finite, or not the
    other's shape."""
    worst = 0.0
    for name, array in one.outputs.items():
        if name not in other.outputs or array.shape != other.outputs[name].shape:
            return math.inf
        a, b = np.asarray(array, float), np.asarray(other.outputs[name], float)
        if np.array_equal(a, b, equal_nan=True):
            continue
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return math.inf
        scale = float(max(np.max(np.abs(a)), np.max(np.abs(b))))
        worst = max(worst, float(np.max(np.abs(a - b))) / scale)
    return worst
