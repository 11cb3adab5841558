"""Fused operations, e.g. ``softmax``: one operation in a plan replaces several primitives.

A fused operation returns the same result as the primitives that it replaces. Backends need not
implement fused operations, and a plan uses only the fused operations that its backend offers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from harness.program import patterns
from harness.program.ir import Node, Program, needed_nodes, reads

# Maxima that may ignore NaN, because all results that depend on them get the NaN in another way.
#
# A softmax subtracts the maximum of each row before it computes exponentials. If a row contains
# NaN, the maximum need not be NaN: the sum of exponentials is NaN, and the whole row is divided by
# this sum. A backend with a faster maximum that ignores NaN may use it only for such maxima.

# Elementwise operations whose result is NaN if any operand is NaN. ``power`` is excluded, because
# 1 ** NaN is 1.
NAN_PASSING = frozenset(
    {*("add", "subtract", "multiply", "divide", "negative", "exp", "log", "tanh", "sqrt")}
    | {"stop_gradient", "broadcast_to"}
)


def loose_maxima(nodes: Sequence[Node], ends: Iterable[int]) -> frozenset[int]:
    """Return the values computed by ``max`` for which a backend may use its ``loose_max``, a faster
    maximum that may ignore NaN.

    A backend may do so if no value in ``ends`` (the results of the program) changes. The function
    considers only maxima over the last axis with kept dimensions.
    """
    read = [{*reads(node)} for node in nodes]
    last = {value: number for number, values in enumerate(read) for value in values}
    last.update(dict.fromkeys(ends, len(nodes)))
    maxima = (n for n, node in enumerate(nodes) if node.op == "max" and node.attributes["keepdims"])
    return frozenset(nodes[n].output for n in maxima if _may_ignore_nan(n, nodes, read, last))


def _may_ignore_nan(
    number: int, nodes: Sequence[Node], read: Sequence[Set[int]], last: Mapping[int, int]
) -> bool:
    """Return whether a maximum may ignore NaN. It may if every result that depends on the maximum
    gets a NaN from the same row of the operand in a different way.

    ``number`` is the index of the maximum's node. ``read`` has the values that each node reads, and
    ``last`` maps a value to the index of the last node that reads it. A maximum without NaN changes
    some intermediate values. Only operations that propagate NaN may read these values, until
    another operand from the same row brings the NaN back.
    """
    maximum = nodes[number]
    # Values in ``entries`` are NaN at the entries where the maximum's operand is NaN; values in
    # ``rows`` are NaN in the whole row. Values in ``lacking`` may lack the NaN; ``until`` is the
    # index of the last node that reads one of them.
    entries, rows, lacking = set(maximum.inputs), set[int](), {maximum.output}
    until = last.get(maximum.output, number)
    while number < until:
        number += 1
        if number == len(nodes):
            return False
        node, operands = nodes[number], read[number]
        if (node.op == "sum" and operands <= entries and _reduce_same_axes(node, maximum)) or (
            node.op in NAN_PASSING and operands & rows
        ):
            rows.add(node.output)
        elif node.op in NAN_PASSING or (
            # The node takes entries from the last axis of such a value, so rows remain rows.
            node.op == "take_along_axis" and node.inputs[0] in lacking
        ):
            if operands & entries and node.op in NAN_PASSING:
                entries.add(node.output)
            if operands & lacking:
                lacking.add(node.output)
                until = max(until, last.get(node.output, number))
        elif operands & lacking:
            return False
    return True


def _reduce_same_axes(total: Node, maximum: Node) -> bool:
    return bool(total.attributes["keepdims"]) and (
        tuple(total.attributes["axis"]) == tuple(maximum.attributes["axis"])
    )


def join_softmaxes(program: Program, nodes: Sequence[Node], ends: Iterable[int]) -> Sequence[Node]:
    """Return ``nodes``, a part of a program, with one node in place of the five primitives of each
    softmax over the last axis, also in loops and calls. The values ``ends`` stay the same."""
    ends = frozenset(ends)
    lookup = patterns.NodesByValue(program.types, {v: node for node in nodes for v in node.outputs})
    uses = Counter(value for node in nodes for value in reads(node))

    def joined(node: Node) -> Node:
        if node.body is not None:
            inner = join_softmaxes(program, node.body.nodes, node.body.outputs)
            return replace(node, body=replace(node.body, nodes=tuple(inner)))
        match = patterns.softmax(lookup, node.inputs) if node.op == "divide" else None
        # The exponentials are needed anyway if something else reads them.
        if match is None or uses[node.inputs[0]] != 2 or node.inputs[0] in ends:
            return node
        return replace(node, op="softmax", inputs=(match[1],), attributes={})

    return needed_nodes(map(joined, nodes), ends)


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
# Less accurate variants of a primitive, which a backend may use in its place on every path. Plans
# do not contain them.
IN_PLACE: Mapping[str, str] = {
    "loose_max": "max, but may ignore NaN: used only if the results are NaN anyway",
}
