"""Fused operations: optional operations of backends beyond the primitives, for plans to use.

Each means exactly the composition of primitives that it replaces. A plan holds only those that its
backend offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from harness.program.ir import Node, reads

# Maxima that may drop NaN, because all that is made of them gets the NaN from elsewhere.
#
# A softmax subtracts the largest entry of each row before it takes exponentials. If a row has a
# NaN, its largest entry need not be NaN: the row's sum of exponentials is NaN, and divides all that
# comes of the row. If a framework has a faster maximum that drops NaN, it may use that one here,
# and nowhere else.

# A NaN in any operand is NaN in the result, entry by entry. Not ``power``: 1 ** NaN is 1.
PASSING = frozenset(
    {*("add", "subtract", "multiply", "divide", "negative", "exp", "log", "tanh", "sqrt")}
    | {"stop_gradient", "broadcast_to"}
)


def loose_maxima(nodes: Sequence[Node], ends: Iterable[int]) -> frozenset[int]:
    """Return the values of ``max`` among ``nodes`` in which NaN may be lost. This holds if only the
    values ``ends`` are looked at, and if the maximum is over the last axis."""
    read = [{*reads(node)} for node in nodes]
    last = {value: number for number, values in enumerate(read) for value in values}
    last.update(dict.fromkeys(ends, len(nodes)))
    found = (n for n, node in enumerate(nodes) if node.op == "max" and node.attributes["keepdims"])
    return frozenset(nodes[n].output for n in found if _is_loose(n, nodes, read, last))


def _is_loose(
    number: int, nodes: Sequence[Node], read: Sequence[Set[int]], last: Mapping[int, int]
) -> bool:
    """Return whether each value that is made of a maximum gets its rows' NaN from elsewhere.

    It must do so before it is looked at, or read by an operation that may hide NaN. ``last`` has
    the place of the last reader of a value.
    """
    most = nodes[number]
    # ``entries`` have the NaN of the maximum's operand in each entry, ``rows`` in all of each row.
    # ``lacking`` lack it if the maximum does; the last of them is read at ``until``.
    entries, rows, lacking = set(most.inputs), set[int](), {most.output}
    until = last.get(most.output, number)
    while number < until:
        number += 1
        if number == len(nodes):
            return False
        node, given = nodes[number], read[number]
        if (node.op == "sum" and given <= entries and _alike(node, most)) or (
            node.op in PASSING and given & rows
        ):
            rows.add(node.output)
        elif node.op in PASSING or (
            # It takes some entries out of the last axis of one of them: rows stay rows.
            node.op == "take_along_axis" and node.inputs[0] in lacking
        ):
            if given & entries and node.op in PASSING:
                entries.add(node.output)
            if given & lacking:
                lacking.add(node.output)
                until = max(until, last.get(node.output, number))
        elif given & lacking:
            return False
    return True


def _alike(total: Node, most: Node) -> bool:
    return bool(total.attributes["keepdims"]) and (
        tuple(total.attributes["axis"]) == tuple(most.attributes["axis"])
    )


FUSED: Mapping[str, str] = {
    "sigmoid": "1 / (1 + exp(-x))",
    "relu": "where(x <= 0, 0, x)",
    "clip": "minimum(maximum(x, low), high)",
    "sigmoid_gradient": "g * y * (1 - y), y the result of sigmoid",
    "tanh_gradient": "g * (1 - y * y), y the result of tanh",
    "relu_gradient": "where(y <= 0, 0, g), y the result of relu",
    "clip_gradient": "g where low < x < high, else 0",
    "addmm": "c + a @ b: a [m, k], b [k, n], c [m, n] or [n]",
    "scatter_add": "x with y[..., 0] added at x[..., indices[..., 0]]",
    "softmax": "exp(x - max(x)) over its sum, along the last axis",
    "log_sum_exp": "log(sum(exp(x))) along the last axis, kept as length 1",
}
# Less exact replacements of a primitive on every path; they are no nodes of a plan.
IN_PLACE: Mapping[str, str] = {
    "loose_max": "max, which may leave NaN out: where all that is made of it has them anyway",
}
