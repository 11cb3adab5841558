"""The functions of the language that are primitives, or a line or two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.errors import SpecError
from harness.language.axis_arguments import arity, axes_of, axis_of, truth_of
from harness.language.conditions import chosen
from harness.language.expressions import Call, List
from harness.language.ordering import ORDERING
from harness.language.scope import Scope
from harness.language.values import LanguageValues
from harness.language.window_calls import overlap_add, windows
from harness.program.dims import product

Builtin = Callable[[LanguageValues, Call, Scope], int]


def _plain(op: str, count: int) -> Builtin:
    def builtin(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
        arity(expr, count)
        values = [evaluator.tensor(a, scope) for a in expr.arguments]
        return evaluator.emit(op, *values, place=expr.place)

    return builtin


def _reduction(op: str) -> Builtin:
    def builtin(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
        keywords = arity(expr, 1, ("axis", "keepdims"))
        value = evaluator.tensor(expr.arguments[0], scope)
        axes = axes_of(evaluator, value, keywords.get("axis"), scope)
        keep = "keepdims" in keywords and truth_of("keepdims", keywords["keepdims"], scope)
        if op in ("mean", "var") and evaluator.type_of(value).kind != "float":
            raise SpecError(
                f"{op} needs floats, found {evaluator.tell(value)}; astype makes floats of an "
                "index or a condition",
                expr.place,
            )
        if op == "var":
            center = evaluator.builder.mean(value, axes, keepdims=True)
            off = evaluator.emit("subtract", value, center, place=expr.place)
            square = evaluator.emit("multiply", off, off, place=expr.place)
            return evaluator.builder.mean(square, axes, keepdims=keep)
        if op == "mean":
            return evaluator.builder.mean(value, axes, keepdims=keep)
        return evaluator.emit(op, value, place=expr.place, axis=axes, keepdims=keep)

    return builtin


def _concat(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    parts = expr.arguments[0] if len(expr.arguments) == 1 else None
    if not isinstance(parts, List) or not parts.items:
        raise SpecError("concat takes a list, as in concat([a, b], axis=-1)", expr.place)
    keywords = arity(expr, 1, ("axis",))
    if "axis" not in keywords:
        raise SpecError("concat needs axis=, as in concat([a, b], axis=-1)", expr.place)
    values = [evaluator.tensor(part, scope) for part in parts.items]
    axis = axis_of(keywords["axis"], len(evaluator.type_of(values[0]).shape), scope)
    return evaluator.emit("concat", *values, place=expr.place, axis=axis)


def _one_hot(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    arity(expr, 2)
    index = evaluator.tensor(expr.arguments[0], scope)
    bound = scope.size(expr.arguments[1])
    return evaluator.emit("one_hot", index, place=expr.place, classes=bound)


def _expand_dims(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    keywords = arity(expr, 1, ("axis",))
    value = evaluator.tensor(expr.arguments[0], scope)
    if "axis" not in keywords:
        raise SpecError("expand_dims needs axis=", expr.place)
    axis = axis_of(keywords["axis"], len(evaluator.type_of(value).shape) + 1, scope)
    return evaluator.builder.emit("expand_dims", value, axis=axis)


def _permute_dims(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    keywords = arity(expr, 1, ("axes",))
    value = evaluator.tensor(expr.arguments[0], scope)
    axes = keywords.get("axes")
    rank = len(evaluator.type_of(value).shape)
    if not isinstance(axes, List):
        raise SpecError("permute_dims needs axes=, a list such as [1, 0]", expr.place)
    order = tuple(axis_of(item, rank, scope) for item in axes.items)
    return evaluator.emit("permute_dims", value, place=expr.place, axes=order)


def _astype(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """``astype(i)``: an index or a condition as floats."""
    arity(expr, 1)
    value = evaluator.tensor(expr.arguments[0], scope)
    if evaluator.type_of(value).kind == "float":
        raise SpecError(f"these are floats already: {evaluator.tell(value)}", expr.place)
    return evaluator.floats(value)


def _arange(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """``arange(time)``: the indices 0, 1, ... of an axis."""
    arity(expr, 1)
    return evaluator.emit("arange", place=expr.place, stop=scope.size(expr.arguments[0]))


def _split(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """``split(x, axis=-1, sizes=[heads, head])``: one axis as several, the last running fastest."""
    keywords = arity(expr, 1, ("axis", "sizes"))
    value = evaluator.tensor(expr.arguments[0], scope)
    sizes = keywords.get("sizes")
    if "axis" not in keywords or not isinstance(sizes, List) or len(sizes.items) < 2:
        raise SpecError(
            "split needs axis= and sizes=, as in split(x, axis=-1, sizes=[heads, head])", expr.place
        )
    shape = evaluator.type_of(value).shape
    axis = axis_of(keywords["axis"], len(shape), scope)
    parts = tuple(scope.size(item) for item in sizes.items)
    if product(parts) != shape[axis]:
        told = " * ".join(f"({p})" if " " in str(p) else str(p) for p in parts)
        raise SpecError(
            f"axis {axis} has {shape[axis]} entries, and {told} is another number: declare the "
            f"size as that product: {evaluator.tell(value)}",
            sizes.place,
        )
    whole = (*shape[:axis], *parts, *shape[axis + 1 :])
    return evaluator.emit("reshape", value, place=expr.place, shape=whole)


def _merge(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """``merge(x, axes=[2, 3])``: neighbouring axes as one, which undoes ``split``."""
    keywords = arity(expr, 1, ("axes",))
    value = evaluator.tensor(expr.arguments[0], scope)
    axes = keywords.get("axes")
    shape = evaluator.type_of(value).shape
    if not isinstance(axes, List) or len(axes.items) < 2:
        raise SpecError("merge needs axes=, as in merge(x, axes=[2, 3])", expr.place)
    found = [axis_of(item, len(shape), scope) for item in axes.items]
    first, stop = found[0], found[0] + len(found)
    if found != list(range(first, stop)):
        raise SpecError(
            f"merge joins neighbours in their order, found axes {found}: bring them side by side "
            "with permute_dims",
            axes.place,
        )
    whole = (*shape[:first], product(shape[first:stop]), *shape[stop:])
    return evaluator.emit("reshape", value, place=expr.place, shape=whole)


BUILTINS: Mapping[str, Builtin] = {
    "exp": _plain("exp", 1),
    "log": _plain("log", 1),
    "tanh": _plain("tanh", 1),
    "sqrt": _plain("sqrt", 1),
    "erf": _plain("erf", 1),
    "sin": _plain("sin", 1),
    "cos": _plain("cos", 1),
    "floor": _plain("floor", 1),
    "astype": _astype,
    "arange": _arange,
    "split": _split,
    "merge": _merge,
    "windows": windows,
    "overlap_add": overlap_add,
    "where": chosen,
    "stop_gradient": _plain("stop_gradient", 1),
    "sum": _reduction("sum"),
    "max": _reduction("max"),
    "mean": _reduction("mean"),
    "var": _reduction("var"),
    "concat": _concat,
    **ORDERING,
    "one_hot": _one_hot,
    "expand_dims": _expand_dims,
    "permute_dims": _permute_dims,
}
