"""Built-in functions of the spec language, as one or several primitives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import Place, SpecError
from harness.language.axes import size_of
from harness.language.axis_attributes import SAME, is_dims
from harness.language.axis_functions import (
    AXIS_FUNCTIONS,
    check_arguments,
    read_axes,
    read_axis,
    read_truth,
)
from harness.language.operators import where
from harness.language.scope import Binding, LanguageValues, Scope, names_in
from harness.language.tree import Call, Expr, List, Name, Number
from harness.program.dims import ONE, Dim, Shape, product, shape_text
from harness.program.windows import WindowedAxis, misfit_text, windowed_axes

# Windows: ``windows(x, axes=[1, 2], size=[3, 3], stride=2, padding=1)`` and ``overlap_add``.

WINDOW_STEPS = ("stride", "dilation", "padding", "after")
EXAMPLE = "windows(x, axes=[1, 2], size=[3, 3])"


def windows(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``windows(x, axes=[1, 2], size=[3, 3])``: windows that slide along the axes. The
    entries of each window are on new axes.

    Raises:
        SpecError: a keyword is wrong, or the windows do not fit the axes.
    """
    keywords = check_arguments(expr, 1, ("axes", "size", *WINDOW_STEPS, "length", "lowest"))
    value, attributes = _read_windows(evaluator, expr, keywords, scope)
    if "lowest" in keywords and keywords["lowest"] != Number(1, place=expr.place):
        raise SpecError("lowest must be 1 or left out", keywords["lowest"].place)
    attributes["lowest"] = "lowest" in keywords
    shape, count = evaluator.type_of(value).shape, len(attributes["axes"])
    if "length" not in keywords:
        attributes["length"] = (ONE,) * count
        axes = [axis for axis, _ in windowed_axes("windows", shape, attributes)]
        attributes["length"] = tuple(_count_windows(axis, expr) for axis in axes)
    return _emit_windows(evaluator, "windows", value, attributes, expr)


def overlap_add(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``overlap_add(y, axes=[1, 2], size=[3, 3])``, the transpose of ``windows``: each
    window is added to the positions that it was taken from.

    Raises:
        SpecError: a keyword is wrong, or the windows do not fit the axes.
    """
    keywords = check_arguments(expr, 1, ("axes", "size", *WINDOW_STEPS, "length"))
    value, attributes = _read_windows(evaluator, expr, keywords, scope)
    shape, axes = evaluator.type_of(value).shape, attributes["axes"]
    window_axes = shape[axes[-1] + 1 : axes[-1] + 1 + len(axes)]
    if window_axes != attributes["size"]:
        sizes = ", ".join(map(str, attributes["size"]))
        raise SpecError(
            f"the axes after axis {axes[-1]} must be those of the windows, [{sizes}]: "
            f"{evaluator.describe(value)}",
            expr.place,
        )
    if "length" not in keywords:
        attributes["length"] = (ONE,) * len(axes)
        attributes["length"] = tuple(
            axis.covered(count) - axis.padding - axis.after
            for axis, count in windowed_axes("overlap_add", shape, attributes)
        )
    return _emit_windows(evaluator, "overlap_add", value, attributes, expr)


def _read_windows(
    evaluator: LanguageValues, expr: Call, keywords: Mapping[str, Expr], scope: Scope
) -> tuple[int, dict[str, Any]]:
    """Return the operand and the attributes (e.g. ``size``) of a ``windows`` or ``overlap_add``
    call. If the call lacks the keyword ``length``, the result lacks this attribute too."""
    value = evaluator.tensor(expr.arguments[0], scope)
    if "axes" not in keywords or "size" not in keywords:
        example = EXAMPLE.replace("windows", expr.function)
        raise SpecError(f"{expr.function} needs axes= and size=, as in {example}", expr.place)
    if evaluator.type_of(value).kind != "float":
        raise SpecError(
            f"{expr.function} needs floats, found {evaluator.describe(value)}; "
            "convert an index or a condition with astype(i); for windows of looked-up rows, write "
            "windows(take(table, i), axes=[1], size=3)",
            expr.place,
        )
    rank = len(evaluator.type_of(value).shape)
    argument = keywords["axes"]
    items = argument.items if isinstance(argument, List) else (argument,)
    axes = tuple(read_axis(item, rank, scope) for item in items)
    if not axes or list(axes) != sorted(set(axes)):
        raise SpecError(
            "axes=[...] must list axes in ascending order, each only once", argument.place
        )
    attributes: dict[str, Any] = {"axes": axes}
    attributes["size"] = _read_per_axis(keywords["size"], "size", 1, len(axes), scope)
    for name in ("stride", "dilation"):
        one = Number(1, place=expr.place)
        attributes[name] = _read_per_axis(keywords.get(name, one), name, 1, len(axes), scope)
    attributes["padding"], attributes["after"] = _read_padding(
        keywords, attributes, evaluator.type_of(value).shape, expr, scope
    )
    if "length" in keywords:
        attributes["length"] = _read_per_axis(keywords["length"], "length", 1, len(axes), scope)
    return value, attributes


def _read_padding(
    keywords: Mapping[str, Expr],
    attributes: Mapping[str, Any],
    shape: Shape,
    expr: Call,
    scope: Scope,
) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """Return two tuples: how many entries to add before each axis, and how many after it. They come
    from the keywords ``padding`` and ``after`` of a call."""
    count, argument = len(attributes["axes"]), keywords.get("padding", Number(0, place=expr.place))
    bound = _bound_value(argument, scope)
    if not (bound == SAME or (isinstance(bound, tuple) and not is_dims(bound))):
        before = _read_per_axis(argument, "padding", 0, count, scope)
        if "after" not in keywords:
            return before, before
        return before, _read_per_axis(keywords["after"], "after", 0, count, scope)
    scope.used.update(names_in(argument))
    if "after" in keywords:
        raise SpecError("this padding has two sides: leave out after=", keywords["after"].place)
    if isinstance(bound, tuple):
        before, after = zip(*bound, strict=True)
        _check_count("padding", len(before), count, argument.place)
        return before, after
    return _same_padding(attributes, shape, expr)


def _same_padding(
    attributes: Mapping[str, Any], shape: Shape, expr: Call
) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """Return the padding before and after each axis for ``padding=same``: an axis then has as many
    windows as it has blocks of ``stride`` entries. If the number of padding entries is odd, the
    additional entry comes after the axis."""
    before, after = [], []
    columns = (attributes[name] for name in ("axes", "size", "stride", "dilation"))
    for axis, size, stride, dilation in zip(*columns, strict=True):
        steps = WindowedAxis(shape[axis], ONE, stride, ONE, Dim(), Dim())
        framed = WindowedAxis(shape[axis], size, stride, dilation, Dim(), Dim())
        total = framed.covered(_count_windows(steps, expr)) - shape[axis]
        total = Dim(max(total.constant, 0)) if not total.terms else total
        half = (total - total.constant % 2).divided(Dim(2))
        if half is None:
            raise SpecError(
                f"padding is same, but half of {total} is not a sum or product of sizes: give "
                "the kernel as a number, or the padding of each side",
                expr.place,
            )
        before.append(half)
        after.append(total - half)
    return tuple(before), tuple(after)


def _check_count(name: str, found: int, count: int, place: Place) -> None:
    if found != count:
        raise SpecError(
            f"{name} needs one entry for each of the {count} axes, found {found}", place
        )


def _bound_value(argument: Expr, scope: Scope) -> Binding | None:
    """Return the value of a name, e.g. of an attribute; None for other expressions."""
    return scope.names.get(argument.id) if isinstance(argument, Name) else None


def _read_per_axis(
    argument: Expr, name: str, minimum: int, count: int, scope: Scope
) -> tuple[Dim, ...]:
    """Return one dimension for each of ``count`` axes. ``argument`` is a list, or a single value
    for all axes. ``name`` is the keyword, e.g. ``stride``; each number must be at least
    ``minimum``."""
    bound = _bound_value(argument, scope)
    if is_dims(bound):
        scope.used.update(names_in(argument))
        _check_count(name, len(bound), count, argument.place)
        for dim in bound:
            _check_minimum(dim, name, minimum, str(dim), argument.place)
        return bound
    items = argument.items if isinstance(argument, List) else (argument,) * count
    _check_count(name, len(items), count, argument.place)
    return tuple(_read_size(item, name, minimum, scope) for item in items)


def _read_size(argument: Expr, name: str, minimum: int, scope: Scope) -> Dim:
    """Convert an expression of sizes and integer attributes to a dimension. If it is a number, it
    must be at least ``minimum``. ``name`` is the keyword in messages."""
    sizes = {n: d for n, d in scope.names.items() if isinstance(d, Dim)}
    for attribute in names_in(argument):
        number = scope.names.get(attribute)
        if isinstance(number, float) and number.is_integer():
            sizes[attribute] = Dim(int(number))
        elif isinstance(number, float):
            raise SpecError(
                f"{name} must be an integer, found {attribute} = {number:g}", argument.place
            )
    dim = size_of(argument, sizes)
    scope.used.update(names_in(argument))
    value_text = f"{argument.id} = {dim}" if isinstance(argument, Name) else str(dim)
    _check_minimum(dim, name, minimum, value_text, argument.place)
    return dim


def _check_minimum(dim: Dim, name: str, minimum: int, value_text: str, place: Place) -> None:
    if not dim.terms and dim.constant < minimum:
        raise SpecError(f"{name} must be at least {minimum}, found {value_text}", place)


def _count_windows(axis: WindowedAxis, expr: Call) -> Dim:
    count = axis.count()
    if count is None:
        remedy = (
            f"declare the axis as a multiple of the stride, as in {axis.stride} * part"
            if not axis.stride.terms
            else f"if the stride is a size, the axis plus padding minus one window must be a "
            f"multiple of the stride or 1 less, found {axis.after_first()}: give the stride as a "
            "number"
        )
        raise SpecError(
            f"the number of windows in {axis.length} entries with stride {axis.stride} is not a "
            f"sum or product of sizes: {remedy}, or declare a size for the number of windows, "
            "and give it in length=[...]",
            expr.place,
        )
    return count


def _emit_windows(
    evaluator: LanguageValues, op: str, value: int, attributes: Mapping[str, Any], expr: Call
) -> int:
    """Emit the node of a ``windows`` or ``overlap_add`` call. If it is known from the symbolic
    sizes whether the windows fit, check that first."""
    for axis, count in windowed_axes(op, evaluator.type_of(value).shape, attributes):
        for room in axis.room(count):
            if not room.terms and room.constant < 0:
                raise SpecError(
                    f"{misfit_text(axis, count)}: {evaluator.describe(value)}", expr.place
                )
    return evaluator.emit(op, value, place=expr.place, **attributes)


Builtin = Callable[[LanguageValues, Call, Scope], int]


def _elementwise(op: str) -> Builtin:
    def builtin(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
        check_arguments(expr, 1)
        value = evaluator.tensor(expr.arguments[0], scope)
        return evaluator.emit(op, value, place=expr.place)

    return builtin


def _reduction(op: str) -> Builtin:
    def builtin(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
        keywords = check_arguments(expr, 1, ("axis", "keepdims"))
        value = evaluator.tensor(expr.arguments[0], scope)
        axes = read_axes(evaluator, value, keywords.get("axis"), scope)
        keep = "keepdims" in keywords and read_truth("keepdims", keywords["keepdims"], scope)
        if op in ("mean", "var") and evaluator.type_of(value).kind != "float":
            raise SpecError(
                f"{op} needs floats, found {evaluator.describe(value)}; convert an index or a "
                "condition with astype",
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
    keywords = check_arguments(expr, 1, ("axis",))
    if "axis" not in keywords:
        raise SpecError("concat needs axis=, as in concat([a, b], axis=-1)", expr.place)
    values = [evaluator.tensor(part, scope) for part in parts.items]
    axis = read_axis(keywords["axis"], len(evaluator.type_of(values[0]).shape), scope)
    return evaluator.emit("concat", *values, place=expr.place, axis=axis)


def _one_hot(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    check_arguments(expr, 2)
    index = evaluator.tensor(expr.arguments[0], scope)
    bound = scope.size(expr.arguments[1])
    return evaluator.emit("one_hot", index, place=expr.place, classes=bound)


def _expand_dims(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    keywords = check_arguments(expr, 1, ("axis",))
    value = evaluator.tensor(expr.arguments[0], scope)
    if "axis" not in keywords:
        raise SpecError("expand_dims needs axis=", expr.place)
    axis = read_axis(keywords["axis"], len(evaluator.type_of(value).shape) + 1, scope)
    return evaluator.builder.emit("expand_dims", value, axis=axis)


def _permute_dims(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    keywords = check_arguments(expr, 1, ("axes",))
    value = evaluator.tensor(expr.arguments[0], scope)
    axes = keywords.get("axes")
    rank = len(evaluator.type_of(value).shape)
    if not isinstance(axes, List):
        raise SpecError("permute_dims needs axes=, a list such as [1, 0]", expr.place)
    order = tuple(read_axis(item, rank, scope) for item in axes.items)
    return evaluator.emit("permute_dims", value, place=expr.place, axes=order)


def _astype(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``astype(i)``: an index or a condition, cast to floats."""
    check_arguments(expr, 1)
    value = evaluator.tensor(expr.arguments[0], scope)
    if evaluator.type_of(value).kind == "float":
        raise SpecError(f"these values are already floats: {evaluator.describe(value)}", expr.place)
    return evaluator.to_floats(value)


def _arange(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``arange(time)``: the indices 0, 1, ... of an axis."""
    check_arguments(expr, 1)
    return evaluator.emit("arange", place=expr.place, stop=scope.size(expr.arguments[0]))


def _split(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``split(x, axis=-1, sizes=[heads, head])``: reshape an axis to several axes, in
    row-major order."""
    keywords = check_arguments(expr, 1, ("axis", "sizes"))
    value = evaluator.tensor(expr.arguments[0], scope)
    sizes = keywords.get("sizes")
    if "axis" not in keywords or not isinstance(sizes, List) or len(sizes.items) < 2:
        raise SpecError(
            "split needs axis= and sizes=, as in split(x, axis=-1, sizes=[heads, head])", expr.place
        )
    shape = evaluator.type_of(value).shape
    axis = read_axis(keywords["axis"], len(shape), scope)
    parts = tuple(scope.size(item) for item in sizes.items)
    if product(parts) != shape[axis]:
        factors = " * ".join(f"({p})" if " " in str(p) else str(p) for p in parts)
        raise SpecError(
            f"axis {axis} has {shape[axis]} entries, and {factors} is a different number: declare "
            f"the size as that product: {evaluator.describe(value)}",
            sizes.place,
        )
    new_shape = (*shape[:axis], *parts, *shape[axis + 1 :])
    return evaluator.emit("reshape", value, place=expr.place, shape=new_shape)


def _merge(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``merge(x, axes=[2, 3])``: reshape adjacent axes to one axis, the inverse of
    ``split``."""
    keywords = check_arguments(expr, 1, ("axes",))
    value = evaluator.tensor(expr.arguments[0], scope)
    axes = keywords.get("axes")
    shape = evaluator.type_of(value).shape
    if not isinstance(axes, List) or len(axes.items) < 2:
        raise SpecError("merge needs axes=, as in merge(x, axes=[2, 3])", expr.place)
    numbers = [read_axis(item, len(shape), scope) for item in axes.items]
    first, stop = numbers[0], numbers[0] + len(numbers)
    if numbers != list(range(first, stop)):
        raise SpecError(
            f"merge needs adjacent axes in ascending order, found axes {numbers}: reorder them "
            "with permute_dims",
            axes.place,
        )
    new_shape = (*shape[:first], product(shape[first:stop]), *shape[stop:])
    return evaluator.emit("reshape", value, place=expr.place, shape=new_shape)


def _grouped_product(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``grouped_product(x, W, groups=2)``, the product of a grouped convolution: it sums
    over the last axes of x and over all axes of W but the last. Channels are on the last axis of x.
    Each group of channels has its own units.

    For example, x of shape ``[batch, steps, kernel, channels]`` and W of shape ``[kernel, channels
    / groups, units]`` give ``[batch, steps, units]``.
    """
    keywords = check_arguments(expr, 2, ("groups",))
    x, kernel = (evaluator.tensor(a, scope) for a in expr.arguments)
    groups = scope.size(keywords["groups"]) if "groups" in keywords else ONE
    outer, whole = evaluator.type_of(x).shape, evaluator.type_of(kernel).shape
    summed, emit, place = len(whole) - 1, evaluator.emit, expr.place
    expected = (*whole[:-2], whole[-2] * groups) if summed > 0 else ()
    if summed < 1 or len(outer) <= summed or outer[-summed:] != expected:
        raise SpecError(
            f"the last axes of x must be {shape_text(expected)}, the kernel's axes but the last "
            f"(with the channels of all groups): {evaluator.describe(x)} and "
            f"{evaluator.describe(kernel)}",
            place,
        )
    lead, units, inside = outer[:-summed], whole[-1], product(whole[:-1])
    each = units.divided(groups)
    if each is None:
        raise SpecError(
            f"groups is {groups}, which does not divide the {units} units of "
            f"{evaluator.describe(kernel)}: choose a multiple of groups",
            place,
        )
    if groups == ONE:
        rows = emit("reshape", x, place=place, shape=(*lead, product(expected)))
        table = emit("reshape", kernel, place=place, shape=(product(expected), units))
        return emit("matmul", rows, table, place=place)
    rank, builder = len(outer), evaluator.builder
    # [lead, taps, groups, channels] -> [groups, lead rows, taps * channels]
    parts = emit("reshape", x, place=place, shape=(*outer[:-1], groups, whole[-2]))
    parts = builder.emit("permute_dims", parts, axes=(rank - 1, *range(rank - 1), rank))
    rows = emit("reshape", parts, place=place, shape=(groups, product(lead), inside))
    table = emit("reshape", kernel, place=place, shape=(inside, groups, each))
    table = builder.emit("permute_dims", table, axes=(1, 0, 2))
    result = builder.emit("permute_dims", emit("matmul", rows, table, place=place), axes=(1, 0, 2))
    return emit("reshape", result, place=place, shape=(*lead, units))


def _repeat(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """Compute ``repeat(x, axis=1, times=n)``: each entry along the axis occurs n times, one after
    another."""
    keywords = check_arguments(expr, 1, ("axis", "times"))
    if "axis" not in keywords or "times" not in keywords:
        raise SpecError(
            "repeat needs axis= and times=, as in repeat(x, axis=1, times=2)", expr.place
        )
    value = evaluator.tensor(expr.arguments[0], scope)
    shape = evaluator.type_of(value).shape
    axis = read_axis(keywords["axis"], len(shape), scope)
    times = _read_size(keywords["times"], "times", 1, scope)
    merged = (*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
    if shape[axis] == ONE:
        return evaluator.emit("broadcast_to", value, place=expr.place, shape=merged)
    copies = evaluator.emit("expand_dims", value, place=expr.place, axis=axis + 1)
    whole = (*shape[: axis + 1], times, *shape[axis + 1 :])
    copies = evaluator.emit("broadcast_to", copies, place=expr.place, shape=whole)
    return evaluator.emit("reshape", copies, place=expr.place, shape=merged)


UNARY = ("exp", "log", "tanh", "sqrt", "erf", "sin", "cos", "floor", "stop_gradient")
BUILTINS: Mapping[str, Builtin] = {
    **{op: _elementwise(op) for op in UNARY},
    "astype": _astype,
    "arange": _arange,
    "split": _split,
    "merge": _merge,
    "windows": windows,
    "overlap_add": overlap_add,
    "grouped_product": _grouped_product,
    "where": where,
    **{op: _reduction(op) for op in ("sum", "max", "mean", "var")},
    "concat": _concat,
    **AXIS_FUNCTIONS,
    "one_hot": _one_hot,
    "expand_dims": _expand_dims,
    "permute_dims": _permute_dims,
    "repeat": _repeat,
}
