"""Rewrite rules that remove operations that only move data, e.g. ``squeeze(expand(x)) -> x``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.program.dims import ONE, Attributes, Dim
from harness.program.passes.rewriter import Rewriter, Rule


def _filled(g: Rewriter, value: int, shape: tuple[Dim, ...]) -> int | None:
    number = g.number(value)
    return None if number is None else g.full(number, shape)


def _permute(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), axes = inputs, tuple(attributes["axes"])
    if axes == tuple(range(len(axes))):
        return value
    inner = g.node(value, "permute_dims")
    if inner is not None:
        before = inner.attributes["axes"]
        return g.emit("permute_dims", inner.inputs[0], axes=tuple(before[a] for a in axes))
    return _filled(g, value, tuple(g.shape(value)[a] for a in axes))


def _broadcast(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), shape = inputs, tuple(attributes["shape"])
    if g.shape(value) == shape:
        return value
    inner = g.node(value, "broadcast_to")
    if inner is not None:
        return g.emit("broadcast_to", inner.inputs[0], shape=shape)
    number = g.number(value)
    if number is not None and g.rank(value):
        return g.full(number, shape)
    inner = g.node(value, "expand_dims")
    if inner is not None and inner.attributes["axis"] == 0:
        return g.emit("broadcast_to", inner.inputs[0], shape=shape)
    return None


def _reshape(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), shape = inputs, tuple(attributes["shape"])
    if g.shape(value) == shape:
        return value
    inner = g.node(value, "reshape")
    if inner is not None:
        return g.emit("reshape", inner.inputs[0], shape=shape)
    return _filled(g, value, shape)


def _expand(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), axis = inputs, attributes["axis"]
    inner = g.node(value, "squeeze")
    if inner is not None and inner.attributes["axis"] == axis:
        return inner.inputs[0]
    shape = g.shape(value)
    return _filled(g, value, (*shape[:axis], ONE, *shape[axis:]))


def _squeeze(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), axis = inputs, attributes["axis"]
    inner = g.node(value, "expand_dims", "sum", "max")
    if inner is not None and inner.op == "expand_dims":
        if inner.attributes["axis"] == axis:
            return inner.inputs[0]
    elif inner is not None and inner.attributes["axis"] == (axis,) and g.uses[value] <= 1:
        return g.emit(inner.op, inner.inputs[0], axis=(axis,), keepdims=False)
    shape = g.shape(value)
    return _filled(g, value, (*shape[:axis], *shape[axis + 1 :]))


def _slice(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    (value,), axis = inputs, attributes["axis"]
    start, stop = Dim.of(attributes["start"]), Dim.of(attributes["stop"])
    shape = g.shape(value)
    if start == Dim() and stop == shape[axis]:
        return value
    inner = g.node(value, "slice")
    if inner is not None and inner.attributes["axis"] == axis:
        first = Dim.of(inner.attributes["start"])
        return g.emit("slice", inner.inputs[0], axis=axis, start=start + first, stop=stop + first)
    inner = g.node(value, "concat")
    if inner is not None and inner.attributes["axis"] == axis:
        return _slice_of_concat(g, inner.inputs, axis, start, stop)
    return _filled(g, value, (*shape[:axis], stop - start, *shape[axis + 1 :]))


def _slice_of_concat(
    g: Rewriter, parts: tuple[int, ...], axis: int, start: Dim, stop: Dim
) -> int | None:
    """Take a slice from one of the concatenated values ``parts``, without the concatenation: ``[a,
    b][:n] -> a[:n]``. Return None if the slice ``start:stop`` does not lie within one of them."""
    offset, low, high = Dim(), start.resolve(g.sizes), stop.resolve(g.sizes)
    for part in parts:
        end = offset + g.shape(part)[axis]
        if offset.resolve(g.sizes) <= low < high <= end.resolve(g.sizes):
            return g.emit("slice", part, axis=axis, start=start - offset, stop=stop - offset)
        offset = end
    return None


def _concat(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    axis = attributes["axis"]
    if len(inputs) == 1:
        return inputs[0]
    parts: list[int] = []
    for value in inputs:
        parts += parts_of(g, value, axis)
    joined = [parts[0]]
    for value in parts[1:]:
        merged = _merge_neighbours(g, joined[-1], value, axis)
        if merged is None:
            joined.append(value)
        else:
            joined[-1] = merged
    if tuple(joined) == inputs:
        return None
    return g.emit("concat", *joined, axis=axis)


def parts_of(g: Rewriter, value: int, axis: int) -> tuple[int, ...]:
    """Return the values that are concatenated along ``axis`` to give ``value``. ``value`` may also
    be a slice of a concatenation. If ``value`` is not a concatenation, return a tuple with
    ``value`` itself."""
    inner = g.node(value, "concat")
    if inner is not None and inner.attributes["axis"] == axis:
        return inner.inputs
    slice_node = g.node(value, "slice")
    concat = g.node(slice_node.inputs[0], "concat") if slice_node is not None else None
    if (
        slice_node is None
        or concat is None
        or {slice_node.attributes["axis"], concat.attributes["axis"]} != {axis}
    ):
        return (value,)
    ends = [Dim()]
    for part in concat.inputs:
        ends.append(ends[-1] + g.shape(part)[axis])
    start, stop = Dim.of(slice_node.attributes["start"]), Dim.of(slice_node.attributes["stop"])
    if start not in ends or stop not in ends:
        return (value,)
    return concat.inputs[ends.index(start) : ends.index(stop)]


def _merge_neighbours(g: Rewriter, left: int, right: int, axis: int) -> int | None:
    """Join two neighbours ``left`` and ``right`` in a concatenation: ``[x[:n], x[n:m]] -> x[:m]``.
    If both are arrays filled with the same number, join them too. Return None if they cannot be
    joined."""
    number = g.number(left)
    if number is not None and repr(number) == repr(g.number(right)):
        shape = g.shape(left)
        length = shape[axis] + g.shape(right)[axis]
        return g.full(number, (*shape[:axis], length, *shape[axis + 1 :]))
    a, b = g.node(left, "slice"), g.node(right, "slice")
    if a is None or b is None or a.inputs != b.inputs or a.attributes["axis"] != axis:
        return None
    if b.attributes["axis"] != axis or Dim.of(a.attributes["stop"]) != b.attributes["start"]:
        return None
    start, stop = a.attributes["start"], b.attributes["stop"]
    return g.emit("slice", a.inputs[0], axis=axis, start=start, stop=stop)


def _flip(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    inner = g.node(inputs[0], "flip")
    if inner is not None and inner.attributes["axis"] == attributes["axis"]:
        return inner.inputs[0]
    return _filled(g, inputs[0], g.shape(inputs[0]))


def _last_step(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Replace the last row of a loop's stack by the loop's last carried value, if these two are
    equal: ``stack[-1]`` becomes ``carried``. A stack has the values of all steps."""
    part = g.node(inputs[0], "slice")
    if part is None or attributes["axis"] != 0 or part.attributes["axis"] != 0:
        return None
    loop = g.node(part.inputs[0], "scan")
    if loop is None or loop.body is None:
        return None
    count, steps = loop.carries, g.shape(part.inputs[0])[0].resolve(g.sizes)
    position = loop.outputs.index(part.inputs[0])
    first = Dim.of(part.attributes["start"]).resolve(g.sizes)
    if position < count or first != (0 if loop.reverse else steps - 1):
        return None
    carried = loop.body.outputs[:count]
    value = loop.body.outputs[position]
    return loop.outputs[carried.index(value)] if value in carried else None


RULES: Mapping[str, Sequence[Rule]] = {
    "permute_dims": (_permute,),
    "broadcast_to": (_broadcast,),
    "reshape": (_reshape,),
    "expand_dims": (_expand,),
    "squeeze": (_squeeze, _last_step),
    "slice": (_slice,),
    "concat": (_concat,),
    "flip": (_flip,),
}
