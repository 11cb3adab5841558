"""Pairs of backends, compared without the oracle: to how many digits do they agree?

All results of the training pass of the check ``values`` are compared on the same numbers: outputs,
loss, state, statistics and gradients.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

import numpy as np

from harness.arrays import Arrays
from harness.oracle.tolerance import relative_error, scales
from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, digits
from harness.results.lines import Begin, Pair
from harness.results.records import Records

# Up to this many pairs are all reported.
FEW = 3


class Pairs:
    """The pairs of a run; ``outliers`` are lines on backends that stand apart, by group. They are
    computed as cells end. Results and outputs are kept until their group is complete."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        groups = [group_of(cell) for cell in cells]
        self._left, self._sizes = Counter(groups), Counter(groups)
        self._order = [*dict.fromkeys(cell.backend for cell in cells)]
        self._ended: dict[Group, list[CellResult]] = {group: [] for group in groups}
        self.outliers: dict[Group, str] = dict.fromkeys(groups, "")

    def ended(self, result: CellResult) -> list[Pair]:
        """Return the pairs of a finished cell with the cells that finished before."""
        group = group_of(result.cell)
        members = self._ended[group]
        pairs = [self._pair(other, result) for other in members if other.values and result.values]
        members.append(result)
        self._left[group] -= 1
        if self._sizes[group] < FEWEST:
            result.outputs = {}
        if not self._left[group]:
            self.outliers[group] = outlier(members)
            for member in members:
                member.values, member.outputs = {}, {}
            del self._ended[group]
        return pairs

    def _pair(self, one: CellResult, other: CellResult) -> Pair:
        first, second = sorted((one, other), key=lambda r: self._order.index(r.cell.backend))
        error, worst = _distance(first.values, second.values)
        backends = first.cell.backend, second.cell.backend
        spec, dtype, path, device = group_of(one.cell)
        return Pair(
            spec=spec,
            dtype=dtype,
            path=path,
            device=device,
            backends=backends,
            error=float(error),
            worst=worst,
        )


def recorded(records: Records) -> list[Pair]:
    """Return the pairs of a record file, except those of a backend that began again later."""
    found: dict[tuple[Group, frozenset[str]], Pair] = {}
    for line in records.lines:
        if isinstance(line, Begin):
            group = group_of(line.cell)
            for key in [k for k in found if k[0] == group and line.backend in k[1]]:
                del found[key]
        elif isinstance(line, Pair):
            found[line.group, frozenset(line.backends)] = line
    return list(found.values())


def statements(
    pairs: Sequence[Pair],
    results: Iterable[CellResult] = (),
    *,
    every: bool = False,
    others: str = "--pairs shows all",
) -> list[str]:
    """Return lines on how many digits backends agree to over all systems, and where they differ.

    ``results`` show which cells differ. If there are many pairs, only the two backends that are
    furthest apart are reported, unless ``every`` is set; ``others`` says where the others are.
    """
    wrong = {r.cell: digits(r.findings) for r in results if r.verdict == "differ"}
    by_backends: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        by_backends.setdefault(pair.backends, []).append(pair)
    if every or len(by_backends) <= FEW:
        return [_statement(backends, found, wrong) for backends, found in by_backends.items()]
    furthest = max(pairs, key=lambda p: (p.group[1] == "float64", p.error))
    told = _statement(furthest.backends, by_backends[furthest.backends], wrong)
    return [f"furthest apart of {len(by_backends)} pairs ({others}): {told}"]


def _statement(
    backends: tuple[str, str], pairs: Sequence[Pair], wrong: Mapping[Cell, float | None]
) -> str:
    variants: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        variants.setdefault((pair.group[1], pair.group[2]), []).append(pair)
    several_paths = len({path for _, path in variants}) > 1
    several_systems = len({pair.group[0] for pair in pairs}) > 1
    agree: list[str] = []
    differ: list[str] = []
    for (dtype, path), found in variants.items():
        worst = max(found, key=lambda p: p.error)
        where = f"{worst.group[0]}: {worst.worst}" if several_systems else worst.worst
        what = f"{dtype} {path}" if several_paths else dtype
        # Two backends that are wrong in the same way agree with each other. So do two of which one
        # is wrong in a result that pairs do not compare.
        known = (wrong.get(cell) for cell in worst.cells)
        if any(own is not None and worst.digits < own + 1 for own in known):
            differ.append(f"{what} ({worst.digits:.1f} digits in {where})")
        else:
            unit = "" if agree else " digits"
            agree.append(f"{worst.digits:.1f}{unit} in {what} ({where})")
    parts = [f"agree to {', '.join(agree)}"] if agree else []
    parts += [f"differ in {', '.join(differ)}"] if differ else []
    return f"{backends[0]} and {backends[1]} {' and '.join(parts)}"


def _distance(one: Arrays, other: Arrays) -> tuple[float, str]:
    """Return the largest error and its tensor. The error is infinite if the shapes differ or if
    only one side has the tensor."""
    sizes = [scales(arrays) for arrays in (one, other)]
    worst = (0.0, next(iter(one), ""))
    for name in dict.fromkeys([*one, *other]):
        error = math.inf
        if name in one and name in other and one[name].shape == other[name].shape:
            scale = max(size[name] for size in sizes)
            error = relative_error(one[name], np.asarray(other[name], np.float64), scale)
        if error > worst[0]:
            worst = error, name
    return worst


# Outliers: compare the outputs of backends pairwise, without the oracle.

FEWEST = 3
"""The least number of backends of which one can stand apart."""

Group = tuple[str, str, str, str]


def group_of(cell: Cell) -> Group:
    """Return all fields of a cell but the backend; cells that share them are compared."""
    return (cell.spec, cell.dtype, cell.path, cell.device)


def group_name(cell: Cell) -> tuple[str, ...]:
    """Return the name of a group; the parts that decide its cost come first."""
    return (f"{cell.dtype} {cell.path}", cell.spec, cell.device)


def outlier(members: Sequence[CellResult]) -> str:
    """Return a line on the backend that stands apart in a group of cells; empty if none does."""
    members = [m for m in members if m.outputs]
    if len(members) < FEWEST or all(m.verdict in PASSING for m in members):
        return ""
    # The lower median: of three backends, the two that agree are near one and far from the other.
    median = {
        m.cell.backend: median_low([_output_gap(m, o) for o in members if o is not m])
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


def _output_gap(one: CellResult, other: CellResult) -> float:
    """Return the largest difference of outputs, relative to the larger size. It is infinite if a
    shape differs, or if unequal outputs have numbers that are not finite."""
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
