"""Declared axes: from ``[batch, time, units + features]`` to dimensions, and matching them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, shorten
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Type
from harness.spec.expressions import Binary, Expr, Name, Number, parse_expression

REST = "..."
# The sizes that arrays decide; every other size has a number in the spec.
FREE_SIZES = ("batch", "time")
# What a dimension may grow to.
MOST_TERMS, MOST_FACTORS = 32, 8


@dataclass
class RestAxes:
    """The axes that ``...`` stands for in one definition: bound by the first input with it.

    ``starts`` are the positions of the ``...`` in those shapes; None dims until one is bound.
    """

    dims: Shape | None = None
    starts: set[int] = field(default_factory=set)


def read_dim(given: Any, known: Mapping[str, Dim], place: Place) -> Dim:
    """A dimension of known sizes; :class:`SpecError` for an unknown one or another operation."""
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise SpecError(f"an axis has 1 entry or more, found {given}", place)
        return Dim(given)
    if not isinstance(given, str):
        found = "a list or mapping" if isinstance(given, list | dict) else shorten(repr(given))
        raise SpecError(
            f"expected a size, a whole number, or a sum or product of those, found {found}", place
        )

    def locate(_line: int, column: int) -> Place:
        return Place(place.file, place.line, place.column + column)

    dim = size_of(parse_expression(given, locate), known)
    if not dim.terms and dim.constant < 1:
        raise SpecError(f"an axis has 1 entry or more, found {given} = {dim}", place)
    return dim


def size_of(expression: Expr, known: Mapping[str, Dim]) -> Dim:
    """The dimension that an expression of sizes and whole numbers stands for.

    Raises:
        SpecError: it has something else in it.
    """
    if isinstance(expression, Number) and isinstance(expression.value, int):
        return Dim(expression.value)
    if isinstance(expression, Name):
        if expression.id not in known:
            names = sorted(known)
            raise SpecError(
                f"unknown size {expression.id!r}{did_you_mean(expression.id, names)} "
                f"(known: {', '.join(names)})",
                expression.place,
            )
        return known[expression.id]
    if isinstance(expression, Binary) and expression.operator in "+-*":
        left, right = size_of(expression.left, known), size_of(expression.right, known)
        if expression.operator == "+":
            return left + right
        if expression.operator == "-":
            return left - right
        return _multiplied(left, right, expression.place)
    raise SpecError(
        "an axis is a size, a whole number, or a sum or product of those", expression.place
    )


def _multiplied(left: Dim, right: Dim, place: Place) -> Dim:
    """A product of dimensions that is still short: squares of squares grow without end."""
    dim = left * right
    if len(dim.terms) > MOST_TERMS or any(t.count("*") >= MOST_FACTORS for t, _ in dim.terms):
        raise SpecError(
            f"an axis is a sum of {MOST_TERMS} products at most, each of {MOST_FACTORS} sizes",
            place,
        )
    return dim


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
                f"found {shape_text(shape)}"
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


def axes_text(axes: Sequence[int | str]) -> str:
    """``[..., features]``."""
    return f"[{', '.join(map(str, axes))}]"
