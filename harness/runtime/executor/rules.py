"""How each primitive becomes instructions: all products and reductions become flat ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.runtime.executor.buffers import Operand, Region, fresh
from harness.runtime.executor.emit import Frame, Shape, elementwise

# (frame, inputs, attributes, shape of the result, its place or None) -> where the result lies.
Rule = Callable[[Frame, list[Operand], dict[str, Any], Shape, Region | None], Operand]


def _concat(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    assert home is not None, "every join has a place"
    axis, start = attributes["axis"], 0
    for part in inputs:
        stop = start + part.shape[axis]
        frame.copy_to(home.narrow(axis, start, stop), part)
        start = stop
    return home


def _flip(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    return elementwise(frame, "flip", [frame.region(inputs[0])], attributes, home or shape)


def _leading_order(region: Region, rank: int) -> Shape:
    """The first ``rank`` axes from the widest stride to the narrowest."""
    return tuple(a for a in region.memory_order() if a < rank)


def _matmul(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    left, right = (frame.region(i) for i in inputs)
    if len(right.shape) > 2:
        out = home or fresh(shape)
        frame.emit("matmul", out, left, right)
        return out
    lead = len(shape) - 1
    order = (*_leading_order(home or left, lead), lead)
    if home is None and left.permute(order).merge(lead, 1) is None:
        order = tuple(range(lead + 1))
    left = frame.matrix(left.permute(order), lead, 1)
    back = sorted(range(lead + 1), key=order.__getitem__)
    out = home.permute(order) if home else fresh(tuple(shape[a] for a in order))
    frame.into(out, "matmul", left, frame.matrix(right, 1, 1), groups=(lead, 1))
    return out.permute(back)


def _addmm(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    added, left, right = inputs
    out = home or fresh(shape)
    left, right = (frame.matrix(frame.region(i), 1, 1) for i in (left, right))
    if isinstance(added, Region):
        added = added.broadcast(shape)
    frame.into(out, "addmm", added, left, right, groups=(1, 1))
    return out


def _tensordot(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    left, right = (frame.region(i) for i in inputs)
    left_axes, right_axes = attributes["axes"]
    left_kept = [a for a in range(len(left.shape)) if a not in left_axes]
    right_kept = [a for a in range(len(right.shape)) if a not in right_axes]
    inner = len(left_axes)
    pairs = list(zip(left_axes, right_axes, strict=True))
    orders = (
        pairs,
        sorted(pairs, key=lambda p: -left.strides[p[0]]),
        sorted(pairs, key=lambda p: -right.strides[p[1]]),
    )

    def arranged(order: Iterable[tuple[int, int]]) -> tuple[Region, Region]:
        order = tuple(order)
        a = left.permute([*left_kept, *(p[0] for p in order)])
        return a, right.permute([*(p[1] for p in order), *right_kept])

    def copied(order: Iterable[tuple[int, int]]) -> int:
        a, b = arranged(order)
        unmerged = ((a, (len(left_kept), inner)), (b, (inner, len(right_kept))))
        return sum(r.size for r, groups in unmerged if r.merge(*groups) is None)

    a, b = arranged(min(orders, key=copied))
    a, b = frame.matrix(a, len(left_kept), inner), frame.matrix(b, inner, len(right_kept))
    out = home or fresh(shape)
    frame.into(out, "matmul", a, b, groups=(len(left_kept), len(right_kept)))
    return out


def _reduction(op: str) -> Rule:
    def rule(
        frame: Frame,
        inputs: list[Operand],
        attributes: dict[str, Any],
        shape: Shape,
        home: Region | None,
    ) -> Operand:
        region = frame.region(inputs[0])
        gone = [a for a in region.memory_order() if a in attributes["axis"]]
        kept = [a for a in range(len(region.shape)) if a not in gone]
        out = home or fresh(shape)
        for axis in sorted(gone, reverse=True) if attributes["keepdims"] else ():
            out = out.squeeze(axis)
        order = _leading_order(region.permute(kept), len(kept))
        if home is None:
            out = fresh(out.shape, like=region.permute(kept))
        matrix = region.permute([*(kept[a] for a in order), *gone])
        merged = frame.merged(matrix, len(kept), len(gone))
        frame.into(out.permute(order), op, merged, groups=(len(kept),))
        for axis in sorted(gone) if attributes["keepdims"] else ():
            out = out.expand(axis)
        return out

    return rule


def _rows(
    frame: Frame, op: str, operands: Sequence[Operand], out: Region, **attributes: Any
) -> None:
    """Work on each row (last axis): every operand has the leading axes of the first."""
    regions = [frame.region(o) for o in operands]
    lead = len(regions[0].shape) - 1
    order = (*_leading_order(regions[0], lead), lead)
    flat = [frame.merged(r.permute(order), lead, 1) for r in regions]
    frame.into(out.permute(order), op, *flat, groups=(lead, 1), **attributes)


def _rowwise(op: str) -> Rule:
    def rule(
        frame: Frame,
        inputs: list[Operand],
        attributes: dict[str, Any],
        shape: Shape,
        home: Region | None,
    ) -> Operand:
        first = frame.region(inputs[0])
        dense = first if 0 not in first.strides else None
        out = home or fresh(shape, like=dense)
        _rows(frame, op, [first, *inputs[1:]], out, **attributes)
        return out

    return rule


def _take(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    table, indices = (frame.region(i) for i in inputs)
    rest, rank = len(table.shape) - 1, len(indices.shape)
    table, indices = frame.merged(table, 1, rest), frame.merged(indices, rank)
    out = home or fresh(shape)
    frame.into(out, "take", table, indices, groups=(rank, rest))
    return out


def _segment_sum(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    values, indices = (frame.region(i) for i in inputs)
    rank, rest = len(indices.shape), len(shape) - 1
    order = _leading_order(values, rank)
    values = values.permute([*order, *range(rank, rank + rest)])
    values = frame.merged(values, rank, rest)
    indices = frame.merged(indices.permute(order), rank)
    out = home or fresh(shape)
    frame.into(out, "segment_sum", values, indices, groups=(1, rest))
    return out


def _one_hot(
    frame: Frame,
    inputs: list[Operand],
    attributes: dict[str, Any],
    shape: Shape,
    home: Region | None,
) -> Operand:
    out = home or fresh(shape)
    frame.emit("one_hot", out, frame.region(inputs[0]).expand(len(shape) - 1))
    return out


RULES: Mapping[str, Rule] = {
    "concat": _concat,
    "flip": _flip,
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
