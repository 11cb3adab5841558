"""Rules that move a permutation of axes past the node that reads it: ``f(x.T) -> f(x).T``.

A permutation moves on until it meets its inverse, or a value that is small. Data have the batch
axis first, but loops run over the first axis. With these rules, the operations after a loop keep
the axis order of the loop. Only permutations of program inputs (mostly indices) move in the other
direction, towards the inputs. No permutation can move in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.program.axes import Axes, inverse
from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule
from harness.program.primitives import BINARY, COMPARISONS, UNARY


def _moved(g: Rewriter, value: int) -> tuple[int, Axes] | None:
    """Return (operand, axes) if a value is a permutation that these rules move; otherwise None."""
    node = g.node(value, "permute_dims")
    if node is None or _given(g, node.inputs[0]):
        return None
    return node.inputs[0], tuple(node.attributes["axes"])


def _given(g: Rewriter, value: int) -> bool:
    """Return whether a value is an index or a program input, possibly permuted or with axes of
    length 1 added or removed."""
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
    """Return the value that becomes ``value`` when permuted by ``axes``, if it needs no large
    permutation; otherwise None."""
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
    """Return the rule ``f(x.T, b) -> f(x, b.T).T`` for operands ``b`` with fewer axes than ``x``.
    The rule applies if nothing else reads ``x.T``."""

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
    """Return a value with fewer axes, expanded to as many axes as ``axes`` has and permuted by
    ``axes``."""
    missing = len(axes) - g.rank(value)
    if axes[missing:] == tuple(range(missing, len(axes))):
        return value
    wide = g.emit("reshape", value, shape=(*[ONE] * missing, *g.shape(value)))
    return g.emit("permute_dims", wide, axes=axes)


# A function that moves a permutation past its reader, a node with one operand. It returns the
# reader's result for the unpermuted operand, and the axes by which this result must be permuted; or
# None if the permutation stays where it is.
Below = Callable[[Rewriter, int, Axes, Attributes], "tuple[int, Axes] | None"]


def _through(below: Below) -> Rule:
    """Return the rule ``f(x.T) -> f(x).T``, in which ``below`` computes f."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        moved = _moved(g, inputs[0])
        found = None if moved is None else below(g, *moved, attributes)
        return None if found is None else g.emit("permute_dims", found[0], axes=found[1])

    return rule


def _product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite ``x.T @ W -> (x @ W).T``, if the permutation does not move the last axis."""
    moved = _moved(g, inputs[0])
    if moved is None or g.rank(inputs[1]) != 2 or moved[1][-1] != len(moved[1]) - 1:
        return None
    return g.emit("permute_dims", g.emit("matmul", moved[0], inputs[1]), axes=moved[1])


def _same_axes(op: str) -> Below:
    return lambda g, value, axes, attributes: (g.apply(op, (value,), attributes), axes)


def _one_axis(op: str) -> Below:
    def below(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
        own = {**attributes, "axis": axes[attributes["axis"]]}
        return g.apply(op, (value,), own), axes

    return below


def _reduction(op: str) -> Below:
    def below(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
        reduced = tuple(sorted(axes[axis] for axis in attributes["axis"]))
        result = g.emit(op, value, axis=reduced, keepdims=attributes["keepdims"])
        if attributes["keepdims"]:
            return result, axes
        kept = [a for a in axes if a not in reduced]
        return result, tuple(sorted(kept).index(a) for a in kept)

    return below


def _squeeze(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
    gone = axes[attributes["axis"]]
    kept = tuple(a - (a > gone) for a in axes if a != gone)
    return g.emit("squeeze", value, axis=gone), kept


def _expand(g: Rewriter, value: int, axes: Axes, attributes: Attributes) -> tuple[int, Axes]:
    """Move a permutation past ``expand_dims``, which then adds the new axis at the end."""
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
    """Rewrite ``table[i].T -> table[i.T]``, if the permutation moves only axes of the indices."""
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
    """Rewrite ``expand(x).T -> expand(x.T)``, if x is a program input and the new axis is the last
    axis before and after the permutation."""
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
    **{op: (_through(_same_axes(op)),) for op in ("stop_gradient", "astype")},
    **{op: (_through(_one_axis(op)),) for op in ("slice", "flip")},
    **{op: (_through(_reduction(op)),) for op in ("sum", "max")},
    "matmul": (_product,),
    "squeeze": (_through(_squeeze),),
    "expand_dims": (_through(_expand),),
    "broadcast_to": (_through(_broadcast),),
    "permute_dims": (_take, _of_expanded),
    "take_along_axis": (_take_along,),
}
