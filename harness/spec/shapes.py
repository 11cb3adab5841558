"""Declared axes: from ``[batch, time, units + features]`` to dimensions, and matching them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.dims import Dim, Shape, shape_text
from harness.errors import Place, SpecError, did_you_mean
from harness.program import Type
from harness.spec.expressions import Binary, Expr, Name, Number, parse_expression

REST = "..."


def read_dim(text: int | str, known: Mapping[str, Dim], place: Place) -> Dim:
    """A dimension of known sizes; :class:`SpecError` for an unknown one or another operation."""
    if isinstance(text, int):
        if text < 1:
            raise SpecError(f"an axis has 1 entry or more, found {text}", place)
        return Dim(text)
    locate = lambda _line, column: Place(place.file, place.line, place.column + column)  # noqa: E731
    return _dim(parse_expression(text, locate), known)


def _dim(expression: Expr, known: Mapping[str, Dim]) -> Dim:
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
    if isinstance(expression, Binary) and expression.operator in "+-":
        right = _dim(expression.right, known)
        left = _dim(expression.left, known)
        return left + right if expression.operator == "+" else left - right
    if isinstance(expression, Binary) and expression.operator == "*":
        left, right = _dim(expression.left, known), _dim(expression.right, known)
        if not left.terms:
            return right * left.constant
        if not right.terms:
            return left * right.constant
    raise SpecError("an axis is a size, a whole number, or a sum of those", expression.place)


def match(
    label: str,
    axes: Sequence[int | str],
    found: Type,
    sizes: dict[str, Dim],
    rest: list[Dim],
    fail: Callable[[str], SpecError],
) -> None:
    """Match a value's shape against declared axes; new axis names are bound in ``sizes``.

    What ``...`` stands for is bound in ``rest`` by the first input that has it. ``fail`` makes
    the error: it knows where the value came from.
    """
    shape = found.shape
    declared = f"declared [{', '.join(map(str, axes))}]"
    plain = [a for a in axes if a != REST]
    if len(axes) - len(plain) > 1:
        raise fail(f"{label} is {declared}: only one '...' can stand in a shape")
    if len(shape) < len(plain) or (len(plain) == len(axes) and len(shape) != len(plain)):
        raise fail(f"{label} is {declared}, found {shape_text(shape)}: another number of axes")
    if REST in axes:
        start = list(axes).index(REST)
        stop = len(shape) - (len(axes) - 1 - start)
        if rest and tuple(rest) != shape[start:stop]:
            raise fail(
                f"{label} is {declared} where ... is {shape_text(rest)}, found {shape_text(shape)}"
            )
        rest[:] = shape[start:stop]
        shape = (*shape[:start], *shape[stop:])
    for axis, dim in zip(plain, shape, strict=True):
        wanted = Dim(axis) if isinstance(axis, int) else sizes.setdefault(axis, dim)
        if wanted != dim:
            raise fail(
                f"{label} is {declared} with {axis} = {wanted}, found {shape_text(found.shape)}"
            )


def substitute(axes: Sequence[int | str], sizes: Mapping[str, Dim], rest: Shape) -> list[Dim]:
    """Axes as dimensions, ``...`` included, where all names are known to be bound."""
    result: list[Dim] = []
    for axis in axes:
        if axis == REST:
            result.extend(rest)
        else:
            result.append(Dim.of(axis) if isinstance(axis, int) else sizes[axis])
    return result
