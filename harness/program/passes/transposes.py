"""Rewrite rules that move a permutation of axes past the node that reads it: ``f(x.T) -> f(x).T``.

A permutation moves past further nodes until it meets its inverse or a small value. Data have the
batch axis first, but loops run over the first axis and therefore need the time axis first. With
these rules, the operations after a loop keep the axis order of the loop. Only permutations of
program inputs (mostly indices) move in the other direction, towards the inputs. No permutation can
move in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.program.axes import Axes, inverse
from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule
from harness.program.primitives import BINARY, COMPARISONS, UNARY


def _movable(g: Rewriter, value: int) -> tuple[int, Axes] | None:
    """Return (operand, axes) if ``value`` is a permutation of ``operand`` by ``axes``, and these
    rules may move it; otherwise None."""
    node = g.node(value, "permute_dims")
    if node is None or _given(g, node.inputs[0]):
        return None
    return node.inputs[0], tuple(node.attributes["axes"])


def _given(g: Rewriter, value: int) -> bool:
    """Return whether a value is an index array or a program input, possibly with its axes permuted,
    or with axes of length 1 added or removed."""
    while (node := g.node(value, "permute_dims", "expand_dims", "squeeze")) is not None:
        value = node.inputs[0]
    return value not in g.made or g.type(value).kind == "index"


def _elementwise(op: str) -> Rule:
    """Return the rewrite rule for the elementwise operation ``op``, here called f: permute its
    result instead of its operands, ``f(x.T, y.T) -> f(x, y).T``."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for value in inputs:
            movable = _movable(g, value)
            if movable is not None:
                break
        if movable is None or len(movable[1]) < max(map(g.rank, inputs)):
            return None
        axes = movable[1]
        operands = [_unpermuted(g, value, axes) for value in inputs]
        if None in operands:
            return None
        plain = tuple(o for o in operands if o is not None)
        return g.emit("permute_dims", g.apply(op, plain, attributes), axes=axes)

    return rule


def _unpermuted(g: Rewriter, value: int, axes: Axes) -> int | None:
    """Return the value that gives ``value`` if it is permuted by ``axes``. Return None if this
    value could only be computed by a large permutation."""
    movable = _movable(g, value)
    if movable is not None and movable[1] == axes:
        return movable[0]
    rank, length = g.rank(value), len(axes)
    if axes[length - rank :] == tuple(range(length - rank, length)):
        return value
    if rank == length and _given(g, value):
        return g.emit("permute_dims", value, axes=inverse(axes))
    return None


def _sinking(op: str) -> Rule:
    """Return the rewrite rule for the operation ``op``, here called f, with an operand ``b`` that
    has fewer axes than ``x``: ``f(x.T, b) -> f(x, b.T).T``. The smaller operand is then permuted.
    The rule applies if no other node reads ``x.T``."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for position, value in enumerate(inputs):
            movable = _movable(g, value)
            if movable is None or g.uses[value] > 1:
                continue
            axes, other_operands = movable[1], (*inputs[:position], *inputs[position + 1 :])
            if any(g.rank(i) >= len(axes) for i in other_operands):
                continue
            permuted = [_widened(g, i, inverse(axes)) for i in other_operands]
            operands = (*permuted[:position], movable[0], *permuted[position:])
            return g.emit("permute_dims", g.apply(op, operands, attributes), axes=axes)
        return None

    return rule


def _widened(g: Rewriter, value: int, axes: Axes) -> int:
    """Expand a value with axes of length 1 until it has as many axes as the permutation ``axes``;
    then permute it by ``axes``."""
    missing = len(axes) - g.rank(value)
    if axes[missing:] == tuple(range(missing, len(axes))):
        return value
    wide = g.emit("reshape", value, shape=(*[ONE] * missing, *g.shape(value)))
    return g.emit("permute_dims", wide, axes=axes)


# A function that moves a permutation past its reader, a node with one operand. It returns the
# reader's result for the unpermuted operand, and the axes by which this result must be permuted; or
# None if the permutation stays where it is.
Below = Callable[[Rewriter, int, Axes, Attributes], "tuple[int, Axes] | None"]


def _past(below: Below) -> Rule:
    """Return the rewrite rule that permutes the result of an operation f instead of its operand:
    ``f(x.T) -> f(x).T``. The function ``below`` emits f for the unpermuted operand."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        movable = _movable(g, inputs[0])
        result = None if movable is None else below(g, *movable, attributes)
        return None if result is None else g.emit("permute_dims", result[0], axes=result[1])

    return rule


def _product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Move a permutation past a matrix product: ``x.T @ W`` becomes ``(x @ W).T``, if the
    permutation does not move the last axis."""
    movable = _movable(g, inputs[0])
    if movable is None or g.rank(inputs[1]) != 2 or movable[1][-1] != len(movable[1]) - 1:
        return None
    return g.emit("permute_dims", g.emit("matmul", movable[0], inputs[1]), axes=movable[1])


def _same_axes(op: str) -> Below:
    return lambda g, value, axes, attributes: (g.apply(op, (value,), attributes), axes)


def _one_axis(op: str) -> Below:
    def below(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
        own_attributes = {**attributes, "axis": axes[attributes["axis"]]}
        return g.apply(op, (value,), own_attributes), axes

    return below


def _reduction(op: str) -> Below:
    def below(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
        reduced = tuple(sorted(axes[axis] for axis in attributes["axis"]))
        result = g.emit(op, value, axis=reduced, keepdims=attributes["keepdims"])
        if attributes["keepdims"]:
            return result, axes
        remaining = [a for a in axes if a not in reduced]
        return result, tuple(sorted(remaining).index(a) for a in remaining)

    return below


def _squeeze(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
    removed = axes[attributes["axis"]]
    remaining = tuple(a - (a > removed) for a in axes if a != removed)
    return g.emit("squeeze", value, axis=removed), remaining


def _expand(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
    """Emit ``expand_dims`` for the unpermuted operand, with the new axis at the end; return the
    result, and the permutation that must follow."""
    new, last = attributes["axis"], len(axes)
    return g.emit("expand_dims", value, axis=last), (*axes[:new], last, *axes[new:])


def _broadcast(
    g: Rewriter, value: int, axes: Axes, attributes: Attributes
) -> tuple[int, Axes] | None:
    shape = attributes["shape"]
    if len(axes) != len(shape):
        return None
    return g.emit("broadcast_to", value, shape=tuple(shape[a] for a in inverse(axes))), axes


def _take(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Permute the indices instead of the rows that they take from a table: ``table[i].T`` becomes
    ``table[i.T]``, if the permutation moves only axes of the indices."""
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
    movable = _movable(g, inputs[0])
    if movable is None or movable[1][-1] != len(movable[1]) - 1:
        return None
    indices = g.emit("permute_dims", inputs[1], axes=inverse(movable[1]))
    result = g.emit("take_along_axis", movable[0], indices)
    return g.emit("permute_dims", result, axes=movable[1])


def _past_expansion(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite ``expand(x).T -> expand(x.T)``, if x is a program input and the new axis of
    ``expand`` is the last axis both before and after the permutation."""
    (value,), axes = inputs, tuple(attributes["axes"])
    node = g.node(value, "expand_dims")
    last = len(axes) - 1
    if node is None or node.attributes["axis"] != last or axes[-1] != last:
        return None
    if not _given(g, node.inputs[0]):
        return None
    inner = g.emit("permute_dims", node.inputs[0], axes=axes[:-1])
    return g.emit("expand_dims", inner, axis=last)


# Rules that move a permutation past an operation with several operands, and permute its smaller
# operands instead.
SINKING: Mapping[str, Sequence[Rule]] = {
    op: (_sinking(op),) for op in (*BINARY, *COMPARISONS, "where")
}
RULES: Mapping[str, Sequence[Rule]] = {
    **{op: (_elementwise(op),) for op in (*UNARY, *BINARY, *COMPARISONS, "where")},
    **{op: (_past(_same_axes(op)),) for op in ("stop_gradient", "astype")},
    **{op: (_past(_one_axis(op)),) for op in ("slice", "flip")},
    **{op: (_past(_reduction(op)),) for op in ("sum", "max")},
    "matmul": (_product,),
    "squeeze": (_past(_squeeze),),
    "expand_dims": (_past(_expand),),
    "broadcast_to": (_past(_broadcast),),
    "permute_dims": (_take, _past_expansion),
    "take_along_axis": (_take_along,),
}
