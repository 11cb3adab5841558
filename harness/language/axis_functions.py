"""Built-in functions that work along an axis: cumulative sums, sorting and gathering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.errors import SpecError, did_you_mean
from harness.language.scope import LanguageValues, Scope
from harness.language.tree import Call, Expr, List, Name, Negate, Number, Rest
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Type

# The names of booleans in expressions; they are the same as in YAML.
TRUTHS: Mapping[str, bool] = {"true": True, "false": False}


def check_arguments(expr: Call, count: int, allowed: tuple[str, ...] = ()) -> dict[str, Expr]:
    """Check that a call has ``count`` arguments without keyword, and only keywords in ``allowed``.
    Return the keywords with their expressions.

    Raises:
        SpecError: the number of arguments differs from ``count``, or a keyword is not allowed.
    """
    if len(expr.arguments) != count:
        plural = "" if count == 1 else "s"
        advice = ""
        by_axis = allowed in (("axis",), ("axis", "keepdims"), ("axis", "descending"))
        if len(expr.arguments) > count == 1 and by_axis:
            advice = f"; name the axis, as in {expr.function}(x, axis=-1)"
            advice += ", or write maximum(a, b)" if expr.function == "max" else ""
        raise SpecError(
            f"{expr.function} takes {count} argument{plural}, found {len(expr.arguments)}{advice}",
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


def _read_integer(expr: Expr, scope: Scope) -> int:
    match expr:
        case Number(int(value)):
            return value
        case Negate(operand):
            return -_read_integer(operand, scope)
        case Name(name) if isinstance(number := scope.names.get(name), float):
            scope.used.add(name)
            if number.is_integer():
                return int(number)
            raise SpecError(f"an axis must be an integer; {name!r} is {number:g}", expr.place)
        case Name(name) if isinstance(size := scope.names.get(name), Dim):
            raise SpecError(
                f"an axis must be an integer such as -1; {name!r} is {size}", expr.place
            )
        case _:
            raise SpecError(
                "an axis must be an integer such as -1, or an attribute that is an integer",
                expr.place,
            )


def read_truth(keyword: str, expr: Expr, scope: Scope) -> bool:
    """Return the value of a boolean keyword: 1, 0, true, false, or the value of a boolean
    attribute.

    Raises:
        SpecError: the value is something else.
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
            raise SpecError(f"{keyword} must be true or false", expr.place)


def read_axis(expr: Expr, rank: int, scope: Scope) -> int:
    """Read an argument that names an axis of a value with ``rank`` axes, e.g. ``-1``. Return the
    axis counted from the first: -1 becomes ``rank - 1``.

    Raises:
        SpecError: the value has no such axis, or the axis is not a whole number.
    """
    axis = _read_integer(expr, scope)
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} is outside the {rank} axes of the value", expr.place)
    return axis % rank


def read_axes(
    evaluator: LanguageValues, value: int, argument: Expr | None, scope: Scope
) -> tuple[int, ...]:
    """Return the axes that the ``argument`` of ``axis=`` names: an axis, a list of axes or ``...``.
    If the argument is None, return all axes of ``value``.

    Raises:
        SpecError: the value has no such axes, or an axis is named twice.
    """
    rank = len(evaluator.type_of(value).shape)
    if argument is None:
        return tuple(range(rank))
    if isinstance(argument, Rest):
        return _rest_axes(evaluator, value, argument, scope)
    if not isinstance(argument, List):
        return (read_axis(argument, rank, scope),)
    axes = tuple(sorted(read_axis(item, rank, scope) for item in argument.items))
    if not axes or len(set(axes)) < len(axes):
        raise SpecError("axis=[...] must list at least one axis, each only once", argument.place)
    return axes


def _rest_axes(
    evaluator: LanguageValues, value: int, argument: Rest, scope: Scope
) -> tuple[int, ...]:
    """Return those axes of ``value`` for which ``...`` stands in the declared shapes of the
    inputs."""
    dims, starts = scope.rest.dims, scope.rest.starts
    if dims is None:
        raise SpecError("axis=... needs a '...' in the shape of an input", argument.place)
    if not dims:
        raise SpecError("'...' stands for no axes in this call", argument.place)
    if len(starts) > 1:
        raise SpecError(
            "'...' is at different positions in the shapes of the inputs: give the axes as numbers",
            argument.place,
        )
    (start,) = starts
    stop = start + len(dims)
    if evaluator.type_of(value).shape[start:stop] != dims:
        raise SpecError(
            f"axis=... stands for the axes {shape_text(dims)} from axis {start} on, "
            f"found {evaluator.describe(value)}",
            argument.place,
        )
    return tuple(range(start, stop))


# Sorting and gathering along any axis. The primitives ``cumulative_sum`` and ``argsort`` work along
# the last axis, so the functions move the axis there. Sorting keeps the order of ties, so in every
# backend the first of equal entries gets the gradient. NaN is sorted after all numbers, in
# ascending and in descending order.

SELECTIONS = ("take", "take_along_axis")


def _permute(evaluator: LanguageValues, value: int, axes: tuple[int, ...]) -> int:
    if axes == tuple(range(len(axes))):
        return value
    result = evaluator.builder.emit("permute_dims", value, axes=axes)
    if value in evaluator.places:
        evaluator.places.setdefault(result, evaluator.places[value])
    return result


def _move_axis_to_end(evaluator: LanguageValues, value: int, axis: int) -> int:
    """Transpose a value so that ``axis`` becomes its last axis."""
    rank = len(evaluator.type_of(value).shape)
    return _permute(evaluator, value, (*(a for a in range(rank) if a != axis), axis))


def _move_axis_back(evaluator: LanguageValues, value: int, axis: int) -> int:
    """Undo :func:`_move_axis_to_end`: transpose a value so that its last axis moves to the position
    ``axis``."""
    last = len(evaluator.type_of(value).shape) - 1
    return _permute(evaluator, value, (*range(axis), last, *range(axis, last)))


def _read_call(
    evaluator: LanguageValues, expr: Call, count: int, scope: Scope, *more: str
) -> tuple[list[Expr], Mapping[str, Expr], int, int]:
    """Check the call of a function that works along an axis. Return four things: its arguments
    after the first, its keywords, the value of the first argument (with the axis moved to the end),
    and the axis. ``count`` is the required number of arguments, and ``more`` names keywords that
    are allowed."""
    keywords = check_arguments(expr, count, ("axis", *more))
    value = evaluator.tensor(expr.arguments[0], scope)
    type_ = evaluator.type_of(value)
    if type_.kind != "float" and expr.function not in SELECTIONS:
        raise SpecError(
            f"{expr.function} needs floats, found {evaluator.describe(value)}; convert an index "
            "or a condition with astype(i)",
            expr.place,
        )
    if not type_.shape:
        raise SpecError(
            f"{expr.function} needs at least one axis, found {evaluator.describe(value)}",
            expr.place,
        )
    rank = len(type_.shape)
    axis = read_axis(keywords["axis"], rank, scope) if "axis" in keywords else rank - 1
    return list(expr.arguments[1:]), keywords, _move_axis_to_end(evaluator, value, axis), axis


def cumsum(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``cumsum(x, axis=1)``: the sum of each entry and all entries before it.

    Raises:
        SpecError: ``axis=`` is missing, or the value has no such axis.
    """
    if "axis" not in dict(expr.keywords):
        raise SpecError("cumsum needs axis=, as in cumsum(x, axis=1)", expr.place)
    _, _, value, axis = _read_call(evaluator, expr, 1, scope)
    total = evaluator.emit("cumulative_sum", value, place=expr.place)
    return _move_axis_back(evaluator, total, axis)


def _sort_order(evaluator: LanguageValues, value: int, descending: bool, expr: Expr) -> int:
    if descending:
        value = evaluator.emit("negative", value, place=expr.place)
    return evaluator.emit("argsort", value, place=expr.place)


def argsort(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``argsort(x, axis=-1, descending=true)``: the indices that sort x."""
    _, keywords, value, axis = _read_call(evaluator, expr, 1, scope, "descending")
    order = _sort_order(evaluator, value, _is_descending(keywords, scope), expr)
    return _move_axis_back(evaluator, order, axis)


def _is_descending(keywords: Mapping[str, Expr], scope: Scope) -> bool:
    name = "descending"
    return name in keywords and read_truth(name, keywords[name], scope)


def sort(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``sort(x, axis=-1, descending=true)``: the sorted entries."""
    _, keywords, value, axis = _read_call(evaluator, expr, 1, scope, "descending")
    order = _sort_order(evaluator, value, _is_descending(keywords, scope), expr)
    entries = evaluator.emit("take_along_axis", value, order, place=expr.place)
    return _move_axis_back(evaluator, entries, axis)


def _argmax(evaluator: LanguageValues, value: int, expr: Expr) -> int:
    """Return the index of the largest entry along the last axis."""
    order = _sort_order(evaluator, value, True, expr)
    last = len(evaluator.type_of(order).shape) - 1
    first = evaluator.builder.slice_axis(order, last, 0, 1)
    return evaluator.builder.emit("squeeze", first, axis=last)


def argmax(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``argmax(x, axis=-1)``: the index of the largest entry. If several entries are
    equally large, it is the index of the first."""
    return _argmax(evaluator, _read_call(evaluator, expr, 1, scope)[2], expr)


def index(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``index(x, below)``: the floats in x, rounded down and clipped to an index from 0 to
    ``below - 1``.

    Raises:
        SpecError: x does not hold floats, or ``below`` is not a size.
    """
    check_arguments(expr, 2)
    value, below = evaluator.tensor(expr.arguments[0], scope), scope.size(expr.arguments[1])
    type_ = evaluator.type_of(value)
    if not below.terms and below.constant < 1:
        raise SpecError(f"the bound of an index must be at least 1, found {below}", expr.place)
    if type_.kind != "float":
        raise SpecError(f"index takes floats, found {evaluator.describe(value)}", expr.place)
    return round_down(evaluator, value, below, expr)


def round_down(evaluator: LanguageValues, value: int, below: Dim, expr: Expr) -> int:
    """Return floats as indices from 0 to ``below - 1``, rounded down."""
    numbers = evaluator.to_floats(evaluator.emit("arange", place=expr.place, stop=below))
    rank = len(evaluator.type_of(value).shape)
    column = evaluator.builder.emit("expand_dims", value, axis=rank)
    reached = evaluator.to_floats(evaluator.emit("less_equal", numbers, column, place=expr.place))
    return _argmax(evaluator, evaluator.emit("multiply", numbers, reached, place=expr.place), expr)


def top_k(evaluator: LanguageValues, expr: Call, scope: Scope) -> tuple[int, int]:
    """Compute ``values, indices = top_k(x, k, axis=-1)``: the k largest entries, largest first, and
    their indices.

    Raises:
        SpecError: the axis has fewer than k entries.
    """
    (count,), _, value, axis = _read_call(evaluator, expr, 2, scope)
    k, length = scope.size(count), evaluator.type_of(value).shape[-1]
    room = length - k
    if not room.terms and room.constant < 0:
        raise SpecError(
            f"top_k cannot return the {k} largest entries: the axis has only {length}", count.place
        )
    order = _sort_order(evaluator, value, True, expr)
    last = len(evaluator.type_of(order).shape) - 1
    chosen = evaluator.builder.slice_axis(order, last, 0, k)
    evaluator.places.setdefault(chosen, expr.place)
    entries = evaluator.emit("take_along_axis", value, chosen, place=expr.place)
    return _move_axis_back(evaluator, entries, axis), _move_axis_back(evaluator, chosen, axis)


def top_values(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``top_k(x, k)`` inside an expression, where only one result is allowed: return the k
    largest entries without their indices."""
    return top_k(evaluator, expr, scope)[0]


def take(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``take(x, i, axis=0)``: the rows of x with the indices i. For example, with axis 1, x
    of shape ``[a, rows, b]`` and i of shape ``[...]`` give ``[a, ..., b]``.

    Raises:
        SpecError: the value has no such axis, or is a single number.
    """
    keywords = check_arguments(expr, 2, ("axis",))
    value, index = (evaluator.tensor(a, scope) for a in expr.arguments)
    type_ = evaluator.type_of(value)
    if not type_.shape:
        raise SpecError(
            f"take needs at least one axis, found {evaluator.describe(value)}", expr.place
        )
    rank, more = len(type_.shape), len(evaluator.type_of(index).shape)
    axis = read_axis(keywords["axis"], rank, scope) if "axis" in keywords else 0
    _check_index(evaluator, expr, type_, axis, index)
    first = _permute(evaluator, value, (axis, *(a for a in range(rank) if a != axis)))
    rows = evaluator.emit("take", first, index, place=expr.place)
    # Move the axes of the index, which come first now, to the position of the taken axis.
    before = tuple(range(more, more + axis))
    return _permute(evaluator, rows, (*before, *range(more), *range(more + axis, more + rank - 1)))


def take_along_axis(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``take_along_axis(x, i, axis=-1)``. If i has one axis less than x, it selects a
    single entry along the axis, and the result lacks this axis."""
    (argument,), _, value, axis = _read_call(evaluator, expr, 2, scope)
    index, type_ = evaluator.tensor(argument, scope), evaluator.type_of(value)
    rank = len(type_.shape)
    single = len(evaluator.type_of(index).shape) == rank - 1
    original_shape = (*type_.shape[:axis], type_.shape[-1], *type_.shape[axis:-1])
    _check_index(evaluator, expr, replace(type_, shape=original_shape), axis, index)
    if single:
        column = evaluator.builder.emit("expand_dims", index, axis=rank - 1)
        evaluator.places[column] = expr.place
    else:
        column = _move_axis_to_end(evaluator, index, axis)
    entries = evaluator.emit("take_along_axis", value, column, place=expr.place)
    if single:
        return evaluator.builder.emit("squeeze", entries, axis=rank - 1)
    return _move_axis_back(evaluator, entries, axis)


def _check_index(evaluator: LanguageValues, expr: Call, value: Type, axis: int, index: int) -> None:
    """Check that the index array ``index`` fits ``value``: its entries must be less than the length
    of ``axis``, and all other axes must have the same lengths as those of ``value``. Raises
    :class:`SpecError` if not."""
    index_type, length = evaluator.type_of(index), value.shape[axis]
    label = f"{expr.function} along axis {axis} of {value}: {evaluator.describe(index)}"
    if index_type.kind != "index":
        return  # the primitive reports this error
    if index_type.bound != length:
        below = f"is below {index_type.bound}, but that axis has {length} entries"
        raise SpecError(f"{label} {below} (index(astype(i), {length}) clips it)", expr.place)
    rest = _drop_axis(value.shape, axis)
    index_rest = (
        index_type.shape
        if len(index_type.shape) < len(value.shape)
        else _drop_axis(index_type.shape, axis)
    )
    if expr.function == "take_along_axis" and index_rest != rest:
        raise SpecError(
            f"{label} has different other axes; for whole rows use take(x, i, axis={axis}), "
            "and for different rows in each example one_hot(i, n) @ x",
            expr.place,
        )


def _drop_axis(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def segment_sum(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``segment_sum(x, i, axis=1)``. The result has one row for each possible index: the
    sum of those entries of x at whose position i has this index. Shapes: x ``[a, ..., b]``, i
    ``[...]``, result ``[a, rows, b]``.

    Raises:
        SpecError: i is not an index, or its axes differ from the axes of x that start at ``axis``.
    """
    keywords = check_arguments(expr, 2, ("axis",))
    value, index = (evaluator.tensor(a, scope) for a in expr.arguments)
    index_type, value_type = evaluator.type_of(index), evaluator.type_of(value)
    operands = f"{evaluator.describe(value)} and {evaluator.describe(index)}"
    if index_type.kind != "index" or index_type.bound is None or value_type.kind != "float":
        raise SpecError(
            f"segment_sum takes floats and an index of rows, found {operands}", expr.place
        )
    rank, more = len(value_type.shape), len(index_type.shape)
    axis = read_axis(keywords["axis"], rank, scope) if "axis" in keywords else 0
    if value_type.shape[axis : axis + more] != index_type.shape:
        raise SpecError(
            f"segment_sum: the axes of the index and x differ from axis {axis} on: {operands}",
            expr.place,
        )
    rest = (*range(axis), *range(axis + more, rank))
    first = _permute(evaluator, value, (*range(axis, axis + more), *rest))
    rows = evaluator.emit("segment_sum", first, index, place=expr.place, rows=index_type.bound)
    return _permute(evaluator, rows, (*range(1, axis + 1), 0, *range(axis + 1, len(rest) + 1)))


# Functions with several results. In an expression, such a function gives its first result.
MULTIPLE_RESULTS: Mapping[str, Callable[[LanguageValues, Call, Scope], tuple[int, ...]]] = {
    "top_k": top_k
}
AXIS_FUNCTIONS: Mapping[str, Callable[[LanguageValues, Call, Scope], int]] = {
    "cumsum": cumsum,
    "argsort": argsort,
    "sort": sort,
    "argmax": argmax,
    "index": index,
    "top_k": top_values,
    "take": take,
    "take_along_axis": take_along_axis,
    "segment_sum": segment_sum,
}
