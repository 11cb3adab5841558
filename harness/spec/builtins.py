"""The functions of the language that are primitives, or a line or two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from harness.dims import Dim
from harness.errors import SpecError, did_you_mean
from harness.spec.expressions import Call, Expr, List, Name, Negate, Number, Rest

if TYPE_CHECKING:
    from harness.spec.evaluate import Evaluator, Scope

Builtin = Callable[["Evaluator", Call, "Scope"], int]


def _arity(expr: Call, count: int, allowed: tuple[str, ...] = ()) -> dict[str, Expr]:
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


def _integer(expr: Expr) -> int:
    if isinstance(expr, Number) and isinstance(expr.value, int):
        return expr.value
    if isinstance(expr, Negate) and isinstance(expr.operand, Number):
        return -_integer(expr.operand)
    raise SpecError("an axis is a whole number such as -1", expr.place)


def _axis(expr: Expr, rank: int) -> int:
    axis = _integer(expr)
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} is outside the {rank} axes of the value", expr.place)
    return axis % rank


def _axes(expr: Call, keywords: Mapping[str, Expr], rank: int, scope: Scope) -> tuple[int, ...]:
    if "axis" not in keywords:
        return tuple(range(rank))
    given = keywords["axis"]
    if isinstance(given, Rest):
        return tuple(range(len(scope.rest)))
    if isinstance(given, List):
        return tuple(sorted({_axis(item, rank) for item in given.items}))
    return (_axis(given, rank),)


def _plain(op: str, count: int) -> Builtin:
    def builtin(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
        _arity(expr, count)
        return evaluator.builder.emit(op, *(evaluator.tensor(a, scope) for a in expr.arguments))

    return builtin


def _reduction(op: str) -> Builtin:
    def builtin(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
        keywords = _arity(expr, 1, ("axis", "keepdims"))
        value = evaluator.tensor(expr.arguments[0], scope)
        axes = _axes(expr, keywords, len(evaluator.type_of(value).shape), scope)
        keep = False
        if "keepdims" in keywords:
            if keywords["keepdims"] != Number(1, place=expr.place):
                raise SpecError("keepdims is 1, or left out", keywords["keepdims"].place)
            keep = True
        if op == "mean":
            return evaluator.builder.mean(value, axes, keepdims=keep)
        return evaluator.builder.emit(op, value, axis=axes, keepdims=keep)

    return builtin


def _concat(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
    keywords = _arity(expr, 1, ("axis",))
    parts = expr.arguments[0]
    if not isinstance(parts, List) or not parts.items:
        raise SpecError("concat takes a list, as in concat([a, b], axis=-1)", expr.place)
    if "axis" not in keywords:
        raise SpecError("concat needs axis=, as in concat([a, b], axis=-1)", expr.place)
    values = [evaluator.tensor(part, scope) for part in parts.items]
    axis = _axis(keywords["axis"], len(evaluator.type_of(values[0]).shape))
    return evaluator.builder.emit("concat", *values, axis=axis)


def _take_along_axis(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
    """``take_along_axis(x, i)``: x ``[..., classes]``, i ``[...]``; one entry for each index."""
    _arity(expr, 2)
    value, index = (evaluator.tensor(a, scope) for a in expr.arguments)
    builder = evaluator.builder
    rank = len(evaluator.type_of(index).shape)
    column = builder.emit("expand_dims", index, axis=rank)
    return builder.emit("squeeze", builder.emit("take_along_axis", value, column), axis=rank)


def _one_hot(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
    _arity(expr, 2)
    index = evaluator.tensor(expr.arguments[0], scope)
    size = expr.arguments[1]
    bound = scope.look_up(size) if isinstance(size, Name) else None
    if not isinstance(bound, Dim):
        raise SpecError("one_hot(i, classes): classes is a size", expr.place)
    return evaluator.builder.emit("one_hot", index, classes=bound)


def _expand_dims(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
    keywords = _arity(expr, 1, ("axis",))
    value = evaluator.tensor(expr.arguments[0], scope)
    if "axis" not in keywords:
        raise SpecError("expand_dims needs axis=", expr.place)
    axis = _axis(keywords["axis"], len(evaluator.type_of(value).shape) + 1)
    return evaluator.builder.emit("expand_dims", value, axis=axis)


def _permute_dims(evaluator: Evaluator, expr: Call, scope: Scope) -> int:
    keywords = _arity(expr, 1, ("axes",))
    value = evaluator.tensor(expr.arguments[0], scope)
    axes = keywords.get("axes")
    rank = len(evaluator.type_of(value).shape)
    if not isinstance(axes, List):
        raise SpecError("permute_dims needs axes=, a list such as [1, 0]", expr.place)
    order = tuple(_axis(item, rank) for item in axes.items)
    return evaluator.builder.emit("permute_dims", value, axes=order)


BUILTINS: Mapping[str, Builtin] = {
    "exp": _plain("exp", 1),
    "log": _plain("log", 1),
    "tanh": _plain("tanh", 1),
    "sqrt": _plain("sqrt", 1),
    "where": _plain("where", 3),
    "take": _plain("take", 2),
    "stop_gradient": _plain("stop_gradient", 1),
    "sum": _reduction("sum"),
    "max": _reduction("max"),
    "mean": _reduction("mean"),
    "concat": _concat,
    "take_along_axis": _take_along_axis,
    "one_hot": _one_hot,
    "expand_dims": _expand_dims,
    "permute_dims": _permute_dims,
}
