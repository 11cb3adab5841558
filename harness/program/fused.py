"""Fused operations: what a backend may offer beyond the primitives, for plans to use.

Each means exactly the composition of primitives that it is found as, and a backend may offer any
subset: a plan holds only those that its backend has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from harness.program.ir import Node, reads

# Maxima that may leave NaN out: what is made of them has it from elsewhere.
#
# A softmax subtracts the largest of each row before it takes exponentials. Whether that largest is
# NaN where the row has one shows nowhere: the row's sum of exponentials is NaN by itself, and all
# that comes of the row is divided by it. Where a framework has a faster maximum that drops NaN, it
# may take that one here, and nowhere else.

# NaN in any operand is NaN in the result, entry by entry. Not ``power``: 1 ** NaN is 1.
PASSING = frozenset(
    {*("add", "subtract", "multiply", "divide", "negative", "exp", "log", "tanh", "sqrt")}
    | {"stop_gradient", "broadcast_to"}
)


def loose_maxima(nodes: Sequence[Node], ends: Iterable[int]) -> frozenset[int]:
    """The values of ``max`` among ``nodes`` in which NaN may be lost, if nothing but the values
    ``ends`` is looked at, and if the axis of the maximum is the last."""
    read = [{*reads(node)} for node in nodes]
    last = {value: number for number, values in enumerate(read) for value in values}
    last.update(dict.fromkeys(ends, len(nodes)))
    found = (n for n, node in enumerate(nodes) if node.op == "max" and node.attributes["keepdims"])
    return frozenset(nodes[n].output for n in found if _is_loose(n, nodes, read, last))


def _is_loose(
    number: int, nodes: Sequence[Node], read: Sequence[Set[int]], last: Mapping[int, int]
) -> bool:
    """Whether each value that is made of a maximum is made of its rows' NaN, too, before it is
    looked at or goes into what may hide it. ``last`` is where a value is last read."""
    most = nodes[number]
    # Values with the NaN of the maximum's operand in each entry, or in all of each row; and those
    # that lack it where the maximum does, up to the place where the last of them is read.
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
# What takes the place of a primitive where it may be less exact, on every path: no node of a plan.
IN_PLACE: Mapping[str, str] = {
    "loose_max": "max, which may leave NaN out: where all that is made of it has them anyway",
}
