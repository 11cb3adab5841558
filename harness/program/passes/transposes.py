"""Permutations moved down until they meet their inverse, or something small: ``f(x.T) -> f(x).T``.

A loop runs over the first axis, data come batch first: what follows a loop so stays in the loop's
own order. Only a program's inputs, indices above all, are permuted where they come in: such a
permutation moves up, and every other one down, so that none goes both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.program.axes import Axes, inverse
from harness.program.dims import ONE, Dim
from harness.program.passes.algebra import BINARY, COMPARISONS, UNARY
from harness.program.passes.rewriter import Rewriter, Rule

Attributes = Mapping[str, Any]


def _moved(g: Rewriter, value: int) -> tuple[int, Axes] | None:
    """What a permutation is of, and its axes, if it is one that moves down."""
    node = g.node(value, "permute_dims")
    if node is None or _given(g, node.inputs[0]):
        return None
    return node.inputs[0], tuple(node.attributes["axes"])


def _given(g: Rewriter, value: int) -> bool:
    """Whether a value is an input of the program, or an index, seen through moves."""
    while (node := g.node(value, "permute_dims", "expand_dims", "squeeze")) is not None:
        value = node.inputs[0]
    return value not in g.made or g.type(value).kind == "index"


def _elementwise(op: str) -> Rule:
    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for value in inputs:
            found = _moved(g, value)
            if found is not None:
                break
        if found is None or len(found[1]) < max(map(g.rank, inputs)):
            return None
        axes = found[1]
        operands = [_unmoved(g, value, axes) for value in inputs]
        if None in operands:
            return None
        plain = tuple(o for o in operands if o is not None)
        return g.emit("permute_dims", g.apply(op, plain, attributes), axes=axes)

    return rule


def _unmoved(g: Rewriter, value: int, axes: Axes) -> int | None:
    """The operand such that permuting it by ``axes`` gives ``value``, where that is cheap."""
    moved = _moved(g, value)
    if moved is not None and moved[1] == axes:
        return moved[0]
    rank, whole = g.rank(value), len(axes)
    if axes[whole - rank :] == tuple(range(whole - rank, whole)):
        return value
    if rank == whole and _given(g, value):
        return g.emit("permute_dims", value, axes=inverse(axes))
    return None


def _sinking(op: str) -> Rule:
    """``f(x.T, b) -> f(x, b.T).T``, where nothing else reads the permutation, and b has fewer
    axes."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for place, value in enumerate(inputs):
            moved = _moved(g, value)
            if moved is None or g.uses[value] > 1:
                continue
            axes, rest = moved[1], (*inputs[:place], *inputs[place + 1 :])
            if any(g.rank(i) >= len(axes) for i in rest):
                continue
            turned = [_widened(g, i, inverse(axes)) for i in rest]
            operands = (*turned[:place], moved[0], *turned[place:])
            return g.emit("permute_dims", g.apply(op, operands, attributes), axes=axes)
        return None

    return rule


def _widened(g: Rewriter, value: int, axes: Axes) -> int:
    """A value of fewer axes, permuted as a result of these is."""
    missing = len(axes) - g.rank(value)
    if axes[missing:] == tuple(range(missing, len(axes))):
        return value
    wide = g.emit("reshape", value, shape=(*[ONE] * missing, *g.shape(value)))
    return g.emit("permute_dims", wide, axes=axes)


def _product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``x.T @ W -> (x @ W).T``, where the last axis stays."""
    moved = _moved(g, inputs[0])
    if moved is None or g.rank(inputs[1]) != 2 or moved[1][-1] != len(moved[1]) - 1:
        return None
    return g.emit("permute_dims", g.emit("matmul", moved[0], inputs[1]), axes=moved[1])


def _same_axes(op: str) -> Rule:
    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        moved = _moved(g, inputs[0])
        if moved is None:
            return None
        return g.emit("permute_dims", g.apply(op, (moved[0],), attributes), axes=moved[1])

    return rule


def _one_axis(op: str) -> Rule:
    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        moved = _moved(g, inputs[0])
        if moved is None:
            return None
        value, axes = moved
        changed = g.apply(op, (value,), {**attributes, "axis": axes[attributes["axis"]]})
        return g.emit("permute_dims", changed, axes=axes)

    return rule


def _reduction(op: str) -> Rule:
    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        moved = _moved(g, inputs[0])
        if moved is None:
            return None
        value, axes = moved
        reduced = tuple(sorted(axes[axis] for axis in attributes["axis"]))
        result = g.emit(op, value, axis=reduced, keepdims=attributes["keepdims"])
        kept = [a for a in axes if a not in reduced]
        if attributes["keepdims"]:
            return g.emit("permute_dims", result, axes=axes)
        order = sorted(kept)
        return g.emit("permute_dims", result, axes=tuple(order.index(a) for a in kept))

    return rule


def _squeeze(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    moved = _moved(g, inputs[0])
    if moved is None:
        return None
    value, axes = moved
    gone = axes[attributes["axis"]]
    kept = tuple(a - (a > gone) for a in axes if a != gone)
    return g.emit("permute_dims", g.emit("squeeze", value, axis=gone), axes=kept)


def _expand(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``expand(x.T) -> expand(x).T``; the new axis is last inside; others keep their numbers."""
    moved = _moved(g, inputs[0])
    if moved is None:
        return None
    value, axes = moved
    new, last = attributes["axis"], len(axes)
    wide = g.emit("expand_dims", value, axis=last)
    return g.emit("permute_dims", wide, axes=(*axes[:new], last, *axes[new:]))


def _broadcast(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    moved = _moved(g, inputs[0])
    if moved is None or len(moved[1]) != len(attributes["shape"]):
        return None
    value, axes = moved
    shape: tuple[Dim, ...] = tuple(attributes["shape"][a] for a in inverse(axes))
    return g.emit("permute_dims", g.emit("broadcast_to", value, shape=shape), axes=axes)


def _take(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``table[i].T -> table[i.T]``, where the permutation is of the indices' axes."""
    (value,), axes = inputs, tuple(attributes["axes"])
    node = g.node(value, "take", "one_hot")
    if node is None:
        return None
    rank = g.rank(node.inputs[-1])
    if axes[rank:] != tuple(range(rank, len(axes))):
        return None
    indices = g.emit("permute_dims", node.inputs[-1], axes=axes[:rank])
    return g.apply(node.op, (*node.inputs[:-1], indices), node.attributes)


def _take_along(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    moved = _moved(g, inputs[0])
    if moved is None or moved[1][-1] != len(moved[1]) - 1:
        return None
    indices = g.emit("permute_dims", inputs[1], axes=inverse(moved[1]))
    found = g.emit("take_along_axis", moved[0], indices)
    return g.emit("permute_dims", found, axes=moved[1])


def _of_expanded(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``expand(x).T -> expand(x.T)``, where x is given and the new last axis stays."""
    (value,), axes = inputs, tuple(attributes["axes"])
    node = g.node(value, "expand_dims")
    last = len(axes) - 1
    if node is None or node.attributes["axis"] != last or axes[-1] != last:
        return None
    if not _given(g, node.inputs[0]):
        return None
    inner = g.emit("permute_dims", node.inputs[0], axes=axes[:-1])
    return g.emit("expand_dims", inner, axis=last)


# What moves a permutation further down, at the cost of one of something smaller.
SINKING: Mapping[str, Sequence[Rule]] = {
    op: (_sinking(op),) for op in (*BINARY, *COMPARISONS, "where")
}
RULES: Mapping[str, Sequence[Rule]] = {
    **{op: (_elementwise(op),) for op in (*UNARY, *BINARY, *COMPARISONS, "where")},
    **{op: (_same_axes(op),) for op in ("stop_gradient", "astype")},
    **{op: (_one_axis(op),) for op in ("slice", "flip")},
    **{op: (_reduction(op),) for op in ("sum", "max")},
    "matmul": (_product,),
    "squeeze": (_squeeze,),
    "expand_dims": (_expand,),
    "broadcast_to": (_broadcast,),
    "permute_dims": (_take, _of_expanded),
    "take_along_axis": (_take_along,),
}
