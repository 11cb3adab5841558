"""Windows along axes: padding is copied around a value once, and the rest is strides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from harness.program.windows import pads_of
from harness.runtime.executor.buffers import Constant, Operand, View, fresh
from harness.runtime.executor.emit import Shape
from harness.runtime.executor.work import Work


def windows(work: Work) -> Operand:
    """The windows as a view: of the operand, or where there is padding of a copy with it."""
    attributes = work.attributes
    (operand,) = work.inputs
    pads = pads_of(attributes, len(operand.shape))
    if not any(map(sum, pads)):
        return _framed(work.assembler.in_memory(operand), attributes, attributes["length"])
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
    work.assembler.emit("copy", _inside(place, pads), operand)
    return _framed(place, attributes, attributes["length"])


def overlap_add(work: Work) -> Operand:
    """For each place in a window all windows are added at once, to memory with the padding."""
    assembler, attributes = work.assembler, work.attributes
    value = assembler.in_memory(work.inputs[0])
    axes: Shape = attributes["axes"]
    pads = pads_of(attributes, len(work.shape))
    shape = tuple(n + before + after for n, (before, after) in zip(work.shape, pads, strict=True))
    total = fresh(shape)
    assembler.emit("copy", total, Constant(0.0, shape))
    places = _framed(total, attributes, [value.shape[axis] for axis in axes])
    for place in product(*map(range, attributes["size"])):
        here, added = _at(places, axes, place), _at(value, axes, place)
        assembler.emit("add", here, here, added)
    return _inside(total, pads)


def _inside(place: View, pads: Sequence[tuple[int, int]]) -> View:
    for axis, (before, after) in enumerate(pads):
        place = place.narrow(axis, before, place.shape[axis] - after)
    return place


def _framed(whole: View, attributes: Mapping[str, Any], counts: Sequence[int]) -> View:
    """The windows of padded memory, one of whose entries may then be in several places."""
    axes, last = attributes["axes"], attributes["axes"][-1] + 1
    shape, strides = list(whole.shape), list(whole.strides)
    for axis, step, count in zip(axes, attributes["stride"], counts, strict=True):
        shape[axis], strides[axis] = count, whole.strides[axis] * step
    shape[last:last] = attributes["size"]
    strides[last:last] = [
        whole.strides[axis] * apart
        for axis, apart in zip(axes, attributes["dilation"], strict=True)
    ]
    return View(whole.buffer, tuple(shape), tuple(strides), whole.offset)


def _at(framed: View, axes: Shape, place: Sequence[int]) -> View:
    """One place of every window."""
    for number in place:
        framed = framed.narrow(axes[-1] + 1, number, number + 1).squeeze(axes[-1] + 1)
    return framed
