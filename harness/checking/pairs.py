"""Comparison of backends with each other, without the oracle: the number of digits to which their
results agree. The compared results are those of the training pass in the check ``values``: outputs,
loss, state, statistics and gradients."""

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

# A report lists all pairs of backends if there are at most this many.
FEW = 3


class Pairs:
    """Comparisons between the backends of a command.

    Cells that differ only in the backend form a group. When a cell ends, it is compared with the
    cells of its group that have ended before. After the last cell of a group, the arrays of the
    group's cells are deleted from memory. ``outliers`` has one text for each group: the text
    describes a backend that differs from all others, or is empty.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        groups = [group_of(cell) for cell in cells]
        self._remaining, self._sizes = Counter(groups), Counter(groups)
        self._order = [*dict.fromkeys(cell.backend for cell in cells)]
        self._ended: dict[Group, list[CellResult]] = {group: [] for group in groups}
        self.outliers: dict[Group, str] = dict.fromkeys(groups, "")

    def ended(self, result: CellResult) -> list[Pair]:
        """Compare a finished cell with each cell that finished earlier and differs from it only in
        the backend. Return the comparisons."""
        group = group_of(result.cell)
        members = self._ended[group]
        pairs = [self._pair(other, result) for other in members if other.values and result.values]
        members.append(result)
        self._remaining[group] -= 1
        if self._sizes[group] < FEWEST:
            result.outputs = {}
        if not self._remaining[group]:
            self.outliers[group] = find_outlier(members)
            for member in members:
                member.values, member.outputs = {}, {}
            del self._ended[group]
        return pairs

    def _pair(self, result: CellResult, partner: CellResult) -> Pair:
        first, second = sorted((result, partner), key=lambda r: self._order.index(r.cell.backend))
        error, worst = _find_largest_error(first.values, second.values)
        backends = first.cell.backend, second.cell.backend
        spec, dtype, path, device = group_of(result.cell)
        return Pair(
            spec=spec,
            dtype=dtype,
            path=path,
            device=device,
            backends=backends,
            error=float(error),
            worst=worst,
        )


def read_pairs(records: Records) -> list[Pair]:
    """Return the comparisons of backends in a record file. If a cell ran again later, its earlier
    comparisons are left out."""
    pairs: dict[tuple[Group, frozenset[str]], Pair] = {}
    for line in records.lines:
        if isinstance(line, Begin):
            group = group_of(line.cell)
            for key in [k for k in pairs if k[0] == group and line.backend in k[1]]:
                del pairs[key]
        elif isinstance(line, Pair):
            pairs[line.group, frozenset(line.backends)] = line
    return list(pairs.values())


def describe_pairs(
    pairs: Sequence[Pair],
    results: Iterable[CellResult] = (),
    *,
    every: bool = False,
    others: str = "--pairs shows all",
) -> list[str]:
    """Return a line for each pair of backends: the number of digits to which they agree, and the
    results in which they differ.

    ``results`` show which cells differ from the oracle. If there are many pairs and ``every`` is
    false, only the pair with the largest difference gets a line. This line contains the text
    ``others``, which says how to see all pairs.
    """
    wrong = {r.cell: digits(r.findings) for r in results if r.verdict == "differ"}
    by_backends: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        by_backends.setdefault(pair.backends, []).append(pair)
    if every or len(by_backends) <= FEW:
        return [
            _describe_pair(backends, members, wrong) for backends, members in by_backends.items()
        ]
    worst = max(pairs, key=lambda p: (p.group[1] == "float64", p.error))
    text = _describe_pair(worst.backends, by_backends[worst.backends], wrong)
    return [f"largest difference of {len(by_backends)} pairs ({others}): {text}"]


def _describe_pair(
    backends: tuple[str, str], pairs: Sequence[Pair], wrong: Mapping[Cell, float | None]
) -> str:
    variants: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        variants.setdefault((pair.group[1], pair.group[2]), []).append(pair)
    several_paths = len({path for _, path in variants}) > 1
    several_systems = len({pair.group[0] for pair in pairs}) > 1
    agree: list[str] = []
    differ: list[str] = []
    for (dtype, path), members in variants.items():
        worst = max(members, key=lambda p: p.error)
        place = f"{worst.group[0]}: {worst.worst}" if several_systems else worst.worst
        variant = f"{dtype} {path}" if several_paths else dtype
        # Two backends that are wrong in the same way agree with each other. They also agree if one
        # of them is wrong only in a result that is not compared here.
        errors = (wrong.get(cell) for cell in worst.cells)
        if any(
            digits_of_cell is not None and worst.digits < digits_of_cell + 1
            for digits_of_cell in errors
        ):
            differ.append(f"{variant} ({worst.digits:.1f} digits in {place})")
        else:
            unit = "" if agree else " digits"
            agree.append(f"{worst.digits:.1f}{unit} in {variant} ({place})")
    parts = [f"agree to {', '.join(agree)}"] if agree else []
    parts += [f"differ in {', '.join(differ)}"] if differ else []
    return f"{backends[0]} and {backends[1]} {' and '.join(parts)}"


def _find_largest_error(first: Arrays, second: Arrays) -> tuple[float, str]:
    """Return the largest relative error between the tensors of two backends, and the name of the
    tensor with this error. The error is infinite if shapes differ, or if only one backend returns a
    tensor."""
    sizes = [scales(arrays) for arrays in (first, second)]
    worst = (0.0, next(iter(first), ""))
    for name in dict.fromkeys([*first, *second]):
        error = math.inf
        if name in first and name in second and first[name].shape == second[name].shape:
            scale = max(size[name] for size in sizes)
            error = relative_error(first[name], np.asarray(second[name], np.float64), scale)
        if error > worst[0]:
            worst = error, name
    return worst


# An outlier is a backend whose outputs differ from the outputs of all other backends, while these
# agree with each other.

FEWEST = 3
"""The least number of backends in a group in which outliers are searched."""

Group = tuple[str, str, str, str]


def group_of(cell: Cell) -> Group:
    """Return all fields of a cell except the backend. Cells for which these fields are equal form a
    group; they are compared with each other."""
    return (cell.spec, cell.dtype, cell.path, cell.device)


def group_name(cell: Cell) -> tuple[str, ...]:
    """Return the group of a cell as a tuple of names, e.g. ``("float32 native",
    "lesson6/keras_gru", "cpu")``. Groups with the same first name (dtype and path) take about the
    same time; :class:`.Shard` distributes them evenly over the shards."""
    return (f"{cell.dtype} {cell.path}", cell.spec, cell.device)


def find_outlier(members: Sequence[CellResult]) -> str:
    """Return a line about a backend whose outputs differ from those of all other backends, if these
    others agree with each other. ``members`` are the results of the same cell on the different
    backends. Return an empty text if there is no such backend."""
    members = [m for m in members if m.outputs]
    if len(members) < FEWEST or all(m.verdict in PASSING for m in members):
        return ""
    # Use the lower median: with three backends, each backend of the agreeing pair is near one
    # backend and far from the other.
    median = {
        m.cell.backend: median_low([_compute_output_error(m, o) for o in members if o is not m])
        for m in members
    }
    first, second, *_ = sorted(median, key=median.__getitem__, reverse=True)
    if median[first] <= 100 * max(median[second], 1e-17):
        return ""
    cell = members[0].cell
    return (
        f"{cell.spec}, {cell.dtype}: {first} is the outlier: its outputs are "
        f"{median[first]:.1e} away from the outputs of the others, which are within "
        f"{median[second]:.1e} of each other"
    )


def _compute_output_error(first: CellResult, second: CellResult) -> float:
    """Return the largest difference between the outputs of two cells, divided by the largest entry.
    The result is infinite if shapes differ, or if differing outputs are not all finite."""
    worst = 0.0
    for name, array in first.outputs.items():
        if name not in second.outputs or array.shape != second.outputs[name].shape:
            return math.inf
        a, b = np.asarray(array, float), np.asarray(second.outputs[name], float)
        if np.array_equal(a, b, equal_nan=True):
            continue
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return math.inf
        scale = float(max(np.max(np.abs(a)), np.max(np.abs(b))))
        worst = max(worst, float(np.max(np.abs(a - b))) / scale)
    return worst
