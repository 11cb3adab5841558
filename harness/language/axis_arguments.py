"""What the calls of the language's own functions say of axes, and how many arguments they have."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import SpecError, did_you_mean
from harness.language.expressions import Call, Expr, List, Name, Negate, Number, Rest
from harness.language.scope import Scope
from harness.language.values import LanguageValues
from harness.program.dims import Dim, shape_text

# How an expression says what YAML says by the same words.
TRUTHS: Mapping[str, bool] = {"true": True, "false": False}


def arity(expr: Call, count: int, allowed: tuple[str, ...] = ()) -> dict[str, Expr]:
    """The keywords of a call of so many arguments.

    Raises:
        SpecError: there are more or fewer, or a keyword is none of those allowed.
    """
    if len(expr.arguments) != count:
        plural = "" if count == 1 else "s"
        told = ""
        by_axis = allowed in (("axis",), ("axis", "keepdims"), ("axis", "descending"))
        if len(expr.arguments) > count == 1 and by_axis:
            told = f"; name the axis, as in {expr.function}(x, axis=-1)"
            told += ", or write maximum(a, b)" if expr.function == "max" else ""
        raise SpecError(
            f"{expr.function} takes {count} argument{plural}, found {len(expr.arguments)}{told}",
            expr.place,
        )
    for name, value in expr.keywords:
        if name not in allowed:
            hint = f" (allowed: {', '.join(allowed)})" if allowed else " (it takes none)"
            raise SpecError(
                f"unknown keyword {name!r} of {expr.function}{did_you_mean(name, allowed)}{hint}",
                value.place,
            )
    return dict(expr.keywords)


def _integer(expr: Expr, scope: Scope) -> int:
    match expr:
        case Number(int(value)):
            return value
        case Negate(operand):
            return -_integer(operand, scope)
        case Name(name) if isinstance(number := scope.names.get(name), float):
            scope.used.add(name)
            if number.is_integer():
                return int(number)
            raise SpecError(f"an axis is a whole number; {name!r} is {number:g}", expr.place)
        case Name(name) if isinstance(size := scope.names.get(name), Dim):
            raise SpecError(f"an axis is a whole number such as -1; {name!r} is {size}", expr.place)
        case _:
            raise SpecError(
                "an axis is a whole number such as -1, or an attribute that is one", expr.place
            )


def truth_of(keyword: str, expr: Expr, scope: Scope) -> bool:
    """Whether a keyword says so: by 1 or 0, true or false, or an attribute that is one of these.

    Raises:
        SpecError: it says something else.
    """
    match expr:
        case Number(0 | 1 as number):
            return bool(number)
        case Name(name) if isinstance(bound := scope.names.get(name), bool):
            scope.used.add(name)
            return bound
        case Name(name) if name in TRUTHS and name not in scope.names:
            return TRUTHS[name]
        case _:
            raise SpecError(f"{keyword} is true or false", expr.place)


def axis_of(expr: Expr, rank: int, scope: Scope) -> int:
    """An axis of a value of so many, counted from its first.

    Raises:
        SpecError: it has no such axis, or this is no whole number.
    """
    axis = _integer(expr, scope)
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} is outside the {rank} axes of the value", expr.place)
    return axis % rank


def axes_of(
    evaluator: LanguageValues, value: int, given: Expr | None, scope: Scope
) -> tuple[int, ...]:
    """The axes that ``axis=`` names: one, a list, ``...``, or all where it is left out.

    Raises:
        SpecError: the value has no such axes, or one is named twice.
    """
    rank = len(evaluator.type_of(value).shape)
    if given is None:
        return tuple(range(rank))
    if isinstance(given, Rest):
        return _rest_axes(evaluator, value, given, scope)
    if not isinstance(given, List):
        return (axis_of(given, rank, scope),)
    axes = tuple(sorted(axis_of(item, rank, scope) for item in given.items))
    if not axes or len(set(axes)) < len(axes):
        raise SpecError("axis=[...] lists one axis or more, each once", given.place)
    return axes


def _rest_axes(evaluator: LanguageValues, value: int, given: Rest, scope: Scope) -> tuple[int, ...]:
    """The axes that ``...`` stands for in the declared shapes, wherever it stands there."""
    dims, starts = scope.rest.dims, scope.rest.starts
    if dims is None:
        raise SpecError("axis=... needs a '...' in the shape of an input", given.place)
    if not dims:
        raise SpecError("'...' stands for no axis at all in this call", given.place)
    if len(starts) > 1:
        raise SpecError("'...' stands in several positions: give the axes as numbers", given.place)
    (start,) = starts
    stop = start + len(dims)
    if evaluator.type_of(value).shape[start:stop] != dims:
        raise SpecError(
            f"axis=... is {shape_text(dims)} from axis {start} on, found {evaluator.tell(value)}",
            given.place,
        )
    return tuple(range(start, stop))
