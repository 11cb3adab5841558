"""Find the free sizes of a model: combine its graphs, traced at several sizes, into one graph.

The traces have the same calls, but lengths that depend on a free size such as ``time`` differ. A
length that differs is expressed by the free sizes, e.g. ``2 * time + 1``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.porting.graph import ModelGraph, TracedCall
from harness.runtime.own_model.graph import TracedGraph, TracedNode

# Lengths that no model uses otherwise, so that the traces differ only through the free sizes. The
# first is below 64, because many models have a table of positions of that length.
LENGTHS = (11, 7, 5, 13, 17, 19, 23, 29)
# The longest length at which a model is traced because it compares positions with a number.
LONGEST = 600
# The number of traces. Two would show that a length varies; three prove the formula.
TRACES = 3

# Larger numbers stand for no limit.
UNLIMITED = 1 << 30


def lengths_of(names: Sequence[str], above: int = 0) -> dict[str, tuple[int, ...]]:
    """Return the length of each free size in each trace: numbers that all differ. The last length
    of each size but ``batch`` is above a number, if the number is not 0."""
    count = len(LENGTHS)
    sizes = {
        name: [
            LENGTHS[(2 * number + trace * 3) % count] + 20 * (number // 4)
            for trace in range(TRACES)
        ]
        for number, name in enumerate(names)
    }
    for number, name in enumerate(n for n in names if above and n != "batch"):
        sizes[name][-1] = above + 3 + 2 * number
    return {name: tuple(lengths) for name, lengths in sizes.items()}


def position_limits(graph: TracedGraph, sizes: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
    """Return numbers with which a model compares positions, such as the length of a window, and
    their places. At lengths below such a number, a comparison has no effect. Smaller numbers than
    the longest length in ``sizes`` are left out."""
    longest = max(max(lengths) for lengths in sizes.values())
    numbers: dict[int, str] = {}
    for node in graph["nodes"]:
        values = node["values"]
        if values is None or node["kind"] == "float" or node["op"] in ("input", "weight"):
            continue
        entries = np.asarray(values)
        one = node["op"] == "constant" and entries.size and (entries == entries.flat[0]).all()
        candidates = [*node["inputs"], *([int(entries.flat[0])] if one else [])]
        for number in candidates:
            if isinstance(number, int | float) and longest < abs(number) < UNLIMITED:
                numbers.setdefault(int(abs(number)), node["place"])
    return numbers


def trace_at_sizes(
    trace: Callable[[Mapping[str, int]], TracedGraph], names: Sequence[str]
) -> tuple[ModelGraph, TracedGraph]:
    """Return the graph of a model with free sizes, and its first trace.

    Args:
        trace: Traces the model at a length of each free size.
        names: The free sizes.

    Raises:
        UsageError: as in :func:`combine`.
    """
    sizes = lengths_of(names)

    def trace_number(number: int, sizes: Mapping[str, tuple[int, ...]]) -> TracedGraph:
        return trace({name: lengths[number] for name, lengths in sizes.items()})

    first = trace_number(0, sizes)
    limits = position_limits(first, sizes) if names else {}
    above = max((n for n in limits if n <= LONGEST), default=0)
    numbers = range(1, TRACES if names else 1)
    if above:
        longer = lengths_of(names, above)
        try:
            graph = combine([first, *(trace_number(n, longer) for n in numbers)], longer)
        except UsageError:
            above = 0  # the model does not run at this length, or runs otherwise
    if not above:
        graph = combine([first, *(trace_number(n, sizes) for n in numbers)], sizes)
    first["remarks"] += [
        f"{place}: the model compares positions with {number}; longer inputs are not proved"
        for number, place in limits.items()
        if number > above
    ]
    return graph, first


def combine(graphs: Sequence[TracedGraph], sizes: Mapping[str, tuple[int, ...]]) -> ModelGraph:
    """Return one graph with free sizes for a model's traces.

    Raises:
        UsageError: the calls of the traces differ, as for a Python loop over a free size, a length
            has no formula, or operators have no rule. The message has all of these problems.
    """
    first = graphs[0]
    calls: list[TracedCall] = []
    solver = Solver(sizes)
    problems = _different_calls(graphs, sizes)
    for nodes in [] if problems else zip(*(g["nodes"] for g in graphs), strict=True):
        try:
            calls += [] if _unsupported(nodes[0]) else [_combine_nodes(nodes, solver)]
        except UsageError as error:
            problems.append(f"{_place(nodes[0])}{error}: {_advice(sizes)}")
            break  # later lengths follow from this one
    if problems := [*problems, *_unsupported_operators(first["nodes"])]:
        raise UsageError("\n".join(problems))
    weights = {n: (tuple(shape), trained) for n, (shape, trained) in first["weights"].items()}
    return ModelGraph(
        tuple(calls), dict(first["outputs"]), weights, sizes, first["config"], first["names"]
    )


def _different_calls(
    graphs: Sequence[TracedGraph], sizes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Return a sentence on the first call that differs between the traces, if any."""
    first = graphs[0]["nodes"]
    for other in (graph["nodes"] for graph in graphs[1:]):
        different = (
            one
            for one, two in zip(first, other, strict=False)
            if one["op"] != two["op"]
            or (one["inputs"] != two["inputs"] and _names(one) != _names(two))
        )
        node = next(different, None if len(first) == len(other) else first[-1])
        if node is not None:
            about = f"the calls of the model depend on the size of {' or '.join(sizes)}, as in a "
            return [f"{_place(node)}{about}Python loop over it: {_advice(sizes)}"]
    return []


def _unsupported(node: TracedNode) -> bool:
    return node["op"] == "unsupported" and node["values"] is None


def _unsupported_operators(nodes: Sequence[TracedNode]) -> list[str]:
    """Return a sentence for each operator without a rule, and the number of the others."""
    unsupported = [node for node in nodes if _unsupported(node)]
    lines = dict.fromkeys(
        f"{_place(node)}{node['attributes']['operator']} has no rule"
        + (f" ({reason})" if (reason := node["attributes"].get("reason")) else "")
        for node in unsupported
    )
    known = len(nodes) - len(unsupported)
    count = f"{known} of {len(nodes)} operators of the model have a rule"
    return [*lines, count] if lines else []


def _names(node: TracedNode) -> list[Any]:
    return [i if isinstance(i, str) else None for i in node["inputs"]]


def _place(node: TracedNode) -> str:
    return f"{node['place']}: " if node["place"] else ""


def _advice(sizes: Mapping[str, tuple[int, ...]]) -> str:
    names = [name for name in sizes if name != "batch"] or ["batch"]
    return f"give {' and '.join(names)} as numbers, as in --input x=batch,3,32,32"


def _combine_nodes(nodes: Sequence[TracedNode], solver: Solver) -> TracedCall:
    first = nodes[0]
    values = [node["values"] for node in nodes]
    arrays = tuple(np.asarray(v) for v in values if v is not None)
    return TracedCall(
        first["name"],
        first["op"],
        tuple(solver.combine([n["inputs"][k] for n in nodes]) for k in range(len(first["inputs"]))),
        solver.combine([n["attributes"] for n in nodes]),
        tuple(solver.combine([list(n["shape"]) for n in nodes])),
        first["kind"],
        tuple((path, kind) for path, kind in first["modules"]),
        first["place"],
        arrays if len(arrays) == len(nodes) else None,
    )


class Solver:
    """The formulas of lengths by free sizes."""

    def __init__(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        self.sizes = sizes
        self.products: dict[str, tuple[int, ...]] = dict(sizes)
        for one, other in combinations_with_replacement(sizes, 2):
            product = tuple(a * b for a, b in zip(sizes[one], sizes[other], strict=True))
            self.products.setdefault(f"{one} * {other}", product)

    def combine(self, values: Sequence[Any]) -> Any:
        """Return the common value of all traces; numbers that differ become expressions.

        Raises:
            UsageError: the values differ in another way, e.g. a text or the length of a list.
        """
        first = values[0]
        same_keys = not isinstance(first, Mapping) or all(v.keys() == first.keys() for v in values)
        same_length = not isinstance(first, list | tuple) or len({*map(len, values)}) == 1
        if not same_keys or not same_length:
            raise UsageError(f"calls of the model depend on the size of {' or '.join(self.sizes)}")
        if isinstance(first, Mapping):
            return {k: self.combine([v[k] for v in values]) for k in first}
        if isinstance(first, list | tuple):
            return [self.combine(list(column)) for column in zip(*values, strict=True)]
        if all(v == first for v in values):
            return first
        if isinstance(first, int) and not isinstance(first, bool):
            return self._solve_length(values)
        if isinstance(first, float):
            return self._solve_number(values)
        raise UsageError(
            f"calls of the model depend on the size of {' or '.join(self.sizes)}: {values}"
        )

    def _solve_length(self, values: Sequence[int]) -> str:
        for name, lengths in self.products.items():
            slope = (values[1] - values[0]) / ((lengths[1] - lengths[0]) or math.inf)
            start = values[0] - slope * lengths[0]
            exact = all(v == slope * n + start for v, n in zip(values, lengths, strict=True))
            if exact and slope == int(slope) and slope > 0 and start == int(start):
                text = name if slope == 1 else f"{int(slope)} * {name}"
                return (
                    text if not start else f"{text} {'-' if start < 0 else '+'} {abs(int(start))}"
                )
        raise UsageError(
            f"the lengths {list(values)} are no sum or product of {', '.join(self.sizes)}"
        )

    def _solve_number(self, values: Sequence[float]) -> str:
        for name, lengths in self.products.items():
            for power, text in (
                (1, name),
                (-1, f"1 / {name}"),
                (0.5, f"{name} ** 0.5"),
                (-0.5, f"{name} ** -0.5"),
            ):
                factors = [v / n**power for v, n in zip(values, lengths, strict=True)]
                if np.allclose(factors, factors[0], rtol=1e-6):
                    factor = round(factors[0], 9)
                    return text if factor == 1 else f"{factor} * {text}"
        raise UsageError(f"the numbers {list(values)} do not follow from {', '.join(self.sizes)}")
