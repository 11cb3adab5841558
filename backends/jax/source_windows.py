"""Write windows along neighbouring axes as JAX source: as indices into the padded array."""

from __future__ import annotations

from collections.abc import Iterator

from harness.extend import UsageError
from harness.extend.program import Dim, Node, pads_of
from harness.extend.source import Emitter


def _places(e: Emitter, node: Node, counts: tuple[Dim, ...]) -> Iterator[str]:
    """Yield the positions of window entries, ``[count, size]`` among axes of length 1.

    There is one array of positions for each axis of the windows.
    """
    attributes, axes = node.attributes, node.attributes["axes"]
    if axes != tuple(range(axes[0], axes[-1] + 1)):
        raise UsageError(
            f"cannot be written as source for jax: {node.op} over axes {list(axes)}, which are no "
            "neighbours; bring them side by side with permute_dims"
        )
    columns = zip(counts, *(attributes[n] for n in ("size", "stride", "dilation")), strict=True)
    for number, (count, size, step, apart) in enumerate(columns):
        starts, offsets = f"jnp.arange({e.size(count)})[:, None]", f"jnp.arange({e.size(size)})"
        starts += "" if step == Dim(1) else f" * {e.size(step)}"
        offsets += "" if apart == Dim(1) else f" * {e.size(apart)}"
        marks = [":" if n % len(axes) == number else "None" for n in range(2 * len(axes))]
        yield f"({starts} + {offsets})" + ("" if len(axes) == 1 else f"[{', '.join(marks)}]")


def windows(e: Emitter, node: Node) -> str:
    """Return the source template of the primitive ``windows``."""
    attributes, rank = node.attributes, len(e.types[node.inputs[0]].shape)
    places = ", ".join(_places(e, node, attributes["length"]))
    pads = pads_of(attributes, rank)
    text = "^0"
    if any(Dim.of(dim) != Dim() for pair in pads for dim in pair):
        fill = ', constant_values=float("-inf")' if attributes["lowest"] else ""
        every = ", ".join(map(e.shape, pads))
        text = f"jnp.pad(%0, ({every},){fill})"
    return f"{text}[{':, ' * attributes['axes'][0]}{places}]"


def overlap_add(e: Emitter, node: Node) -> str:
    """Return the source template of the primitive ``overlap_add``."""
    attributes, shape = node.attributes, e.types[node.output].shape
    axes = attributes["axes"]
    counts = tuple(e.types[node.inputs[0]].shape[axis] for axis in axes)
    places = ", ".join(_places(e, node, counts))
    whole, inside = list(shape), [":"] * len(shape)
    columns = zip(axes, attributes["padding"], attributes["after"], strict=True)
    for axis, before, after in columns:
        inside[axis] = f"{e.size(before)}:{e.size(before + shape[axis])}"
        whole[axis] = before + whole[axis] + after
    zeros = f"jnp.zeros({e.shape(whole)}, {e.like}.dtype)"
    return f"{zeros}.at[{':, ' * axes[0]}{places}].add(%0)[{', '.join(inside)}]"
