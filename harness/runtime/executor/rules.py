"""Conversion of the operations of a plan to instructions. Matmuls and reductions get operands with
merged axes, because kernels expect matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from harness.program.axes import inverse
from harness.program.dims import Attributes
from harness.program.windows import pads_of
from harness.runtime.executor.buffers import Constant, Operand, View, fresh
from harness.runtime.executor.emit import Shape, Work, elementwise


def windows(work: Work) -> Operand:
    """Return all windows of the operand (as for a convolution) as a view in which windows share
    entries. If there is padding, it is a view of a padded copy."""
    attributes = work.attributes
    (operand,) = work.inputs
    pads = pads_of(attributes, len(operand.shape))
    if not any(map(sum, pads)):
        return _window_view(work.assembler.in_memory(operand), attributes, attributes["length"])
    shape = tuple(
        n + before + after for n, (before, after) in zip(operand.shape, pads, strict=True)
    )
    place = fresh(shape)
    fill = -math.inf if attributes["lowest"] else 0.0
    for axis, (before, after) in enumerate(pads):
        for start, stop in ((0, before), (shape[axis] - after, shape[axis])):
            if start < stop:
                edge = place.narrow(axis, start, stop)
                work.assembler.emit("copy", edge, Constant(fill, edge.shape))
    work.assembler.emit("copy", _crop_padding(place, pads), operand)
    return _window_view(place, attributes, attributes["length"])


def overlap_add(work: Work) -> Operand:
    """Return the sum of overlapping windows (the transpose of :func:`windows`), with the padding
    cut off.

    There is one instruction for each position in a window. It adds the entries at this position, of
    all windows.
    """
    assembler, attributes = work.assembler, work.attributes
    value = assembler.in_memory(work.inputs[0])
    axes: Shape = attributes["axes"]
    pads = pads_of(attributes, len(work.shape))
    shape = tuple(n + before + after for n, (before, after) in zip(work.shape, pads, strict=True))
    total = fresh(shape)
    assembler.emit("copy", total, Constant(0.0, shape))
    places = _window_view(total, attributes, [value.shape[axis] for axis in axes])
    for place in product(*map(range, attributes["size"])):
        here, added = _window_entry(places, axes, place), _window_entry(value, axes, place)
        assembler.emit("add", here, here, added)
    return _crop_padding(total, pads)


def _crop_padding(place: View, pads: Sequence[tuple[int, int]]) -> View:
    for axis, (before, after) in enumerate(pads):
        place = place.narrow(axis, before, place.shape[axis] - after)
    return place


def _window_view(padded: View, attributes: Attributes, counts: Sequence[int]) -> View:
    """Return the windows of ``padded`` as a view, in which overlapping windows share entries.
    ``counts`` are the numbers of windows along each axis."""
    axes, last = attributes["axes"], attributes["axes"][-1] + 1
    shape, strides = list(padded.shape), list(padded.strides)
    for axis, step, count in zip(axes, attributes["stride"], counts, strict=True):
        shape[axis], strides[axis] = count, padded.strides[axis] * step
    shape[last:last] = attributes["size"]
    strides[last:last] = [
        padded.strides[axis] * apart
        for axis, apart in zip(axes, attributes["dilation"], strict=True)
    ]
    return View(padded.buffer, tuple(shape), tuple(strides), padded.offset)


def _window_entry(framed: View, axes: Shape, place: Sequence[int]) -> View:
    for number in place:
        framed = framed.narrow(axes[-1] + 1, number, number + 1).squeeze(axes[-1] + 1)
    return framed


# A function that appends a node's instructions and returns the place of the node's result.
Rule = Callable[[Work], Operand]


def _concat(work: Work) -> Operand:
    assert work.home is not None, "every join has a place"
    axis, start = work.attributes["axis"], 0
    for part in work.inputs:
        stop = start + part.shape[axis]
        work.assembler.copy_to(work.home.narrow(axis, start, stop), part)
        start = stop
    return work.home


def _reshape(work: Work) -> Operand:
    """Return a view with the same entries in another shape. If that is impossible, it is a view of
    a copy."""
    (operand,) = work.inputs
    if isinstance(operand, Constant):
        return Constant(operand.number, work.shape)
    view = operand.reshape(work.shape) or work.assembler.compact(operand).reshape(work.shape)
    assert view is not None
    return view


def _unmerged_rule(op: str) -> Rule:
    def rule(work: Work) -> Operand:
        out = work.place()
        work.assembler.emit(op, out, *work.operands())
        return out

    return rule


def _leading_order(view: View, rank: int) -> Shape:
    """Return the numbers of the first ``rank`` axes, ordered from the largest stride to the
    smallest."""
    return tuple(a for a in view.memory_order() if a < rank)


def _matmul(work: Work) -> Operand:
    assembler, shape, home = work.assembler, work.shape, work.home
    left, right = work.operands()
    if len(right.shape) > 2:
        out = work.place()
        assembler.emit("matmul", out, left, right)
        return out
    lead = len(shape) - 1
    order = (*_leading_order(home or left, lead), lead)
    if home is None and left.permute(order).merge(lead, 1) is None:
        order = tuple(range(lead + 1))
    left = assembler.matrix(left.permute(order), lead, 1)
    out = home.permute(order) if home else fresh(tuple(shape[a] for a in order))
    assembler.into(out, "matmul", left, assembler.matrix(right, 1, 1), groups=(lead, 1))
    return out.permute(inverse(order))


def _addmm(work: Work) -> Operand:
    assembler, out = work.assembler, work.place()
    added = work.inputs[0]
    left, right = (assembler.matrix(assembler.in_memory(i), 1, 1) for i in work.inputs[1:])
    if isinstance(added, View):
        added = added.broadcast(work.shape)
    assembler.into(out, "addmm", added, left, right, groups=(1, 1))
    return out


def _tensordot(work: Work) -> Operand:
    assembler = work.assembler
    left, right = work.operands()
    left_axes, right_axes = work.attributes["axes"]
    left_kept = [a for a in range(len(left.shape)) if a not in left_axes]
    right_kept = [a for a in range(len(right.shape)) if a not in right_axes]
    inner = len(left_axes)
    pairs = list(zip(left_axes, right_axes, strict=True))
    orders = (
        pairs,
        sorted(pairs, key=lambda p: -left.strides[p[0]]),
        sorted(pairs, key=lambda p: -right.strides[p[1]]),
    )

    def arranged(order: Iterable[tuple[int, int]]) -> tuple[View, View]:
        order = tuple(order)
        a = left.permute([*left_kept, *(p[0] for p in order)])
        return a, right.permute([*(p[1] for p in order), *right_kept])

    def copied(order: Iterable[tuple[int, int]]) -> int:
        a, b = arranged(order)
        unmerged = ((a, (len(left_kept), inner)), (b, (inner, len(right_kept))))
        return sum(view.size for view, groups in unmerged if view.merge(*groups) is None)

    a, b = arranged(min(orders, key=copied))
    a = assembler.matrix(a, len(left_kept), inner)
    b = assembler.matrix(b, inner, len(right_kept))
    out = work.place()
    assembler.into(out, "matmul", a, b, groups=(len(left_kept), len(right_kept)))
    return out


def _reduction(op: str) -> Rule:
    def rule(work: Work) -> Operand:
        assembler, attributes = work.assembler, work.attributes
        view = assembler.in_memory(work.inputs[0])
        reduced = [a for a in view.memory_order() if a in attributes["axis"]]
        kept = [a for a in range(len(view.shape)) if a not in reduced]
        out = work.place()
        for axis in sorted(reduced, reverse=True) if attributes["keepdims"] else ():
            out = out.squeeze(axis)
        order = _leading_order(view.permute(kept), len(kept))
        if work.home is None:
            out = fresh(out.shape, like=view.permute(kept))
        matrix = view.permute([*(kept[a] for a in order), *reduced])
        merged = assembler.merged(matrix, len(kept), len(reduced))
        assembler.into(out.permute(order), op, merged, groups=(len(kept),))
        for axis in sorted(reduced) if attributes["keepdims"] else ():
            out = out.expand(axis)
        return out

    return rule


def _rowwise(op: str) -> Rule:
    """Return the rule of an operation that works row by row, i.e. along the last axis. The rule
    converts a node to instructions.

    All operands must have the same axes before the last axis as the first operand.
    """

    def rule(work: Work) -> Operand:
        assembler, views = work.assembler, work.operands()
        first = views[0]
        out = work.place(like=first if 0 not in first.strides else None)
        lead = len(first.shape) - 1
        order = (*_leading_order(first, lead), lead)
        flat = [assembler.merged(view.permute(order), lead, 1) for view in views]
        assembler.into(out.permute(order), op, *flat, groups=(lead, 1), **work.attributes)
        return out

    return rule


def _take(work: Work) -> Operand:
    assembler = work.assembler
    table, indices = work.operands()
    rest, rank = len(table.shape) - 1, len(indices.shape)
    table, indices = assembler.merged(table, 1, rest), assembler.merged(indices, rank)
    out = work.place()
    assembler.into(out, "take", table, indices, groups=(rank, rest))
    return out


def _segment_sum(work: Work) -> Operand:
    assembler = work.assembler
    values, indices = work.operands()
    rank, rest = len(indices.shape), len(work.shape) - 1
    order = _leading_order(values, rank)
    values = values.permute([*order, *range(rank, rank + rest)])
    values = assembler.merged(values, rank, rest)
    indices = assembler.merged(indices.permute(order), rank)
    out = work.place()
    assembler.into(out, "segment_sum", values, indices, groups=(1, rest))
    return out


def _one_hot(work: Work) -> Operand:
    out = work.place()
    (indices,) = work.operands()
    work.assembler.emit("one_hot", out, indices.expand(len(work.shape) - 1))
    return out


RULES: Mapping[str, Rule] = {
    "concat": _concat,
    "flip": lambda work: elementwise(
        work.assembler, "flip", work.operands(), work.attributes, work.home or work.shape, work.kind
    ),
    "arange": _unmerged_rule("arange"),
    "reshape": _reshape,
    "windows": windows,
    "overlap_add": overlap_add,
    "cumulative_sum": _unmerged_rule("cumulative_sum"),
    "argsort": _unmerged_rule("argsort"),
    "matmul": _matmul,
    "addmm": _addmm,
    "tensordot": _tensordot,
    "sum": _reduction("sum"),
    "max": _reduction("max"),
    "softmax": _rowwise("softmax"),
    "log_sum_exp": _rowwise("log_sum_exp"),
    "take_along_axis": _rowwise("take_along_axis"),
    "scatter_add": _rowwise("scatter_add"),
    "take": _take,
    "segment_sum": _segment_sum,
    "one_hot": _one_hot,
}
