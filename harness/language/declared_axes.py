"""Declared axes: from ``[batch, time, units + features]`` to dimensions, and matching them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import Place, SpecError
from harness.language.size_expressions import read_dim
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Type

REST, BATCH = "...", "batch"


@dataclass
class RestAxes:
    """The axes that ``...`` stands for in one definition: bound by the first input with it.

    ``starts`` are the positions of the ``...`` in those shapes; None dims until one is bound.
    """

    dims: Shape | None = None
    starts: set[int] = field(default_factory=set)


def read_dims(
    axes: Sequence[int | str],
    known: Mapping[str, Dim],
    rest: RestAxes,
    place_of: Callable[[int], Place],
) -> Shape:
    """Declared axes as dimensions, ``...`` included; ``place_of`` tells where an axis stands.

    Raises:
        SpecError: a size is unknown, or there is nothing that ``...`` stands for.
    """
    result: list[Dim] = []
    for number, axis in enumerate(axes):
        if axis != REST:
            result.append(read_dim(axis, known, place_of(number)))
        elif rest.dims is None:
            raise SpecError("no input's shape has a '...' to take this from", place_of(number))
        else:
            result.extend(rest.dims)
    return tuple(result)


def match(
    label: str,
    axes: Sequence[int | str],
    found: Type,
    sizes: dict[str, Dim],
    rest: RestAxes,
    fail: Callable[[str], SpecError],
) -> None:
    """Match a value's shape against declared axes; new axis names are bound in ``sizes``.

    What ``...`` stands for is bound in ``rest`` by the first input that has it. ``fail`` makes
    the error: it knows where the value came from.
    """
    shape = found.shape
    declared = f"declared {axes_text(axes)}"
    plain = [a for a in axes if a != REST]
    if len(shape) < len(plain) or (len(plain) == len(axes) and len(shape) != len(plain)):
        raise fail(f"{label} is {declared}, found {shape_text(shape)}: another number of axes")
    if REST in axes:
        start = list(axes).index(REST)
        stop = len(shape) - (len(axes) - 1 - start)
        covered = shape[start:stop]
        if rest.dims is not None and rest.dims != covered:
            raise fail(
                f"{label} is {declared} where ... is {shape_text(rest.dims)}, "
                f"found {shape_text(shape)}{_lacks_batch(rest.dims, covered)}"
            )
        rest.dims = covered
        rest.starts.add(start)
        shape = (*shape[:start], *shape[stop:])
    for axis, dim in zip(plain, shape, strict=True):
        wanted = Dim(axis) if isinstance(axis, int) else sizes.setdefault(axis, dim)
        if wanted != dim:
            raise fail(
                f"{label} is {declared} with {axis} = {wanted}, found {shape_text(found.shape)}"
            )


def _lacks_batch(*shapes: Shape) -> str:
    """What to write where one shape starts with ``batch``, and another with a number."""
    first = {shape[0] for shape in shapes if shape}
    numbers = [dim for dim in first if not dim.terms]
    if Dim.of(BATCH) not in first or not numbers:
        return ""
    return f"; a shape that starts with {numbers[0]} has no batch axis: write {BATCH} there"


def axes_text(axes: Sequence[int | str]) -> str:
    """``[..., features]``."""
    return f"[{', '.join(map(str, axes))}]"
