"""The arguments of the language's functions: how many, which keywords, which axes."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import SpecError, did_you_mean
from harness.spec.expressions import Call, Expr, Negate, Number
from harness.spec.scope import Scope
from harness.spec.values import LanguageValues

Builtin = Callable[[LanguageValues, Call, Scope], int]


def arity(expr: Call, count: int, allowed: tuple[str, ...] = ()) -> dict[str, Expr]:
    """The keywords of a call.

    Raises:
        SpecError: it has another number of arguments, or a keyword that is not allowed.
    """
    if len(expr.arguments) != count:
        plural = "" if count == 1 else "s"
        raise SpecError(
            f"{expr.function} takes {count} argument{plural}, found {len(expr.arguments)}",
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


def integer(expr: Expr) -> int:
    """A whole number.

    Raises:
        SpecError: it is something else.
    """
    if isinstance(expr, Number) and isinstance(expr.value, int):
        return expr.value
    if isinstance(expr, Negate) and isinstance(expr.operand, Number):
        return -integer(expr.operand)
    raise SpecError("an axis is a whole number such as -1", expr.place)


def one_axis(expr: Expr, rank: int) -> int:
    """An axis, counted from the first.

    Raises:
        SpecError: it is no axis of a value of that rank.
    """
    axis = integer(expr)
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} is outside the {rank} axes of the value", expr.place)
    return axis % rank
