"""Conversion of operators to primitives: comparisons, conditions, ``@``, indices and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import Place, SpecError
from harness.language import tree
from harness.language.axis_functions import check_arguments, round_down
from harness.language.scope import LanguageValues, Scope, is_whole_number
from harness.program.dims import Dim, shape_text

# Comparisons and logical operators, which are computed with floats.

COMPARISONS: Mapping[str, tuple[str, bool]] = {
    "<": ("less", False),
    "<=": ("less_equal", False),
    ">": ("less", True),
    ">=": ("less_equal", True),
    "==": ("equal", False),
}

# Arithmetic operators that a comparison may contain together with indices.
SUMS: Mapping[str, str] = {"+": "add", "-": "subtract", "*": "multiply"}


def compare(
    evaluator: LanguageValues,
    expr: tree.Expr,
    operator: str,
    left: tree.Expr,
    right: tree.Expr,
    scope: Scope,
) -> int:
    """Evaluate ``left operator right``, a comparison of two floats or two integers. ``==`` and
    ``!=`` can also compare two conditions.

    Raises:
        SpecError: an index is compared with floats.
    """
    if operator == "!=":
        same = compare(evaluator, expr, "==", left, right, scope)
        return negate(evaluator, evaluator.to_floats(same), expr.place)
    op, swapped = COMPARISONS[operator]
    (a, is_index), (b, other_is_index) = (
        _evaluate_side(evaluator, side, scope) for side in (left, right)
    )
    if op == "equal" and {evaluator.type_of(value).kind for value in (a, b)} == {"bool"}:
        a, b = evaluator.to_floats(a), evaluator.to_floats(b)
        return evaluator.emit(op, a, b, place=expr.place)
    if is_index != other_is_index:
        _check_whole(right if is_index else left, scope)
    if swapped:
        a, b = b, a
    if not (is_index or other_is_index):
        return evaluator.emit(op, a, b, place=expr.place)
    # Compare with the midpoint between two whole numbers, so that rounding errors do not matter.
    half = evaluator.builder.constant(0.5)
    a, b = evaluator.to_floats(a), evaluator.to_floats(b)
    if op == "less":
        a = evaluator.emit("add", a, half, place=expr.place)
    elif op == "less_equal":
        b = evaluator.emit("add", b, half, place=expr.place)
    return evaluator.emit(op, a, b, place=expr.place)


def _evaluate_side(evaluator: LanguageValues, expr: tree.Expr, scope: Scope) -> tuple[int, bool]:
    """Evaluate one side of a comparison. Return two things: its value number, and True if the
    expression contains an index.

    An index can be added to, subtracted from or multiplied by indices, integers and sizes.

    Raises:
        SpecError: an index is combined with floats.
    """
    if not (isinstance(expr, tree.Binary) and expr.operator in SUMS):
        value = evaluator.tensor(expr, scope)
        return value, evaluator.type_of(value).kind == "index"
    (a, is_index), (b, other_is_index) = (
        _evaluate_side(evaluator, e, scope) for e in (expr.left, expr.right)
    )
    if is_index != other_is_index:
        _check_whole(expr.right if is_index else expr.left, scope)
    if is_index or other_is_index:
        a, b = evaluator.to_floats(a), evaluator.to_floats(b)
    return evaluator.emit(SUMS[expr.operator], a, b, place=expr.place), is_index or other_is_index


def _check_whole(side: tree.Expr, scope: Scope) -> None:
    if not is_whole_number(side, scope):
        raise SpecError(
            "an index can be compared with an index, an integer or a size, or a sum or product of "
            "these; write astype(i) to compare it with floats",
            side.place,
        )


def index_arithmetic(
    evaluator: LanguageValues, expr: tree.Binary, left: int, right: int, scope: Scope
) -> int:
    """Return the sum, difference or product of an index and an index, an integer or a size.

    Raises:
        SpecError: the operator is different, a side is a float, or the result may be negative.
    """
    if expr.operator not in SUMS:
        text = f"'{expr.operator}' needs floats; convert an index with astype(i)"
        raise SpecError(text, expr.place)
    sides = ((left, expr.left), (right, expr.right))
    for value, side in sides:
        if evaluator.type_of(value).kind != "index" and not is_whole_number(side, scope):
            found = " and ".join(evaluator.describe(operand) for operand, _ in sides)
            raise SpecError(
                f"'{expr.operator}' of an index needs an index, an integer or a size on the other "
                f"side; write astype(i) for floats: {found}",
                expr.place,
            )
    (a_low, a_high, a), (b_low, b_high, b) = (
        _index_range(evaluator, value, side, scope) for value, side in sides
    )
    low, high = {
        "+": (a_low + b_low, a_high + b_high),
        "-": (a_low - b_high, a_high - b_low),
        "*": (a_low * b_low, a_high * b_high),
    }[expr.operator]
    if low.constant + sum(c for _, c in low.terms) < 0 or any(c < 0 for _, c in low.terms):
        raise SpecError(
            f"an index cannot be negative, and this one is at least {low}: add a number before "
            "you subtract, as in i + (n - 1) - j, or write astype(i) for floats",
            expr.place,
        )
    floats = evaluator.emit(SUMS[expr.operator], a, b, place=expr.place)
    # Rounding down the midpoint between whole numbers is exact.
    half = evaluator.builder.constant(0.5)
    middle = evaluator.emit("add", floats, half, place=expr.place)
    result = round_down(evaluator, middle, high + 1, expr)
    evaluator.computed_indices[result] = (low, floats)
    return result


def _index_range(
    evaluator: LanguageValues, value: int, side: tree.Expr, scope: Scope
) -> tuple[Dim, Dim, int]:
    """Return the smallest and largest possible number of a side, and the numbers as floats."""
    bound = evaluator.type_of(value).bound
    if bound is None:
        number = scope.size(side)
        return number, number, value
    low, floats = evaluator.computed_indices.get(value) or (Dim(), evaluator.to_floats(value))
    return low, bound - 1, floats


def constant_condition(evaluator: LanguageValues, truth: bool, place: Place) -> int:
    """Return a condition whose value is always ``truth``."""
    one, number = evaluator.builder.constant(1.0), evaluator.builder.constant(float(truth))
    return evaluator.emit("equal", one, number, place=place)


def where(evaluator: LanguageValues, expr: tree.Call, scope: Scope) -> int:
    """Compute ``where(condition, a, b)``. If the condition is a boolean attribute, the result is a
    or b itself.

    In this case both a and b are evaluated, to check them, but the program does not run the unused
    value.
    """
    check_arguments(expr, 3)
    values = [evaluator.tensor(argument, scope) for argument in expr.arguments]
    condition, inverse = expr.arguments[0], False
    while isinstance(condition, tree.Invert):
        condition, inverse = condition.operand, not inverse
    bound = scope.names.get(condition.id) if isinstance(condition, tree.Name) else None
    if isinstance(bound, bool):
        return values[1] if bound != inverse else values[2]
    return evaluator.emit("where", *values, place=expr.place)


def evaluate_condition(
    evaluator: LanguageValues, operator: str, expr: tree.Expr, scope: Scope
) -> int:
    """Evaluate an operand of ``&``, ``|`` or ``~``, and cast it to floats (1 for true, 0 for
    false). ``operator`` is named in messages.

    Raises:
        SpecError: the operand is not a condition.
    """
    value = evaluator.tensor(expr, scope)
    if evaluator.type_of(value).kind != "bool":
        use = f"joins conditions, each in brackets, as in (a < b) {operator} (c < d)"
        if operator == "~":
            use = "negates a condition in brackets, as in ~(a < b)"
        raise SpecError(f"'{operator}' {use}; found {evaluator.describe(value)}", expr.place)
    return evaluator.to_floats(value)


def negate(evaluator: LanguageValues, floats: int, place: Place) -> int:
    """Return the negation of a condition. ``floats`` is the condition cast to floats (1 for true, 0
    for false)."""
    return evaluator.emit("equal", floats, evaluator.builder.constant(0.0), place=place)


def join_conditions(
    evaluator: LanguageValues,
    operator: str,
    left: tree.Expr,
    right: tree.Expr,
    scope: Scope,
    place: Place,
) -> int:
    """Evaluate ``a & b`` or ``a | b`` by arithmetic on floats (1 for true, 0 for false): ``&`` is
    true if the product is 1, and ``|`` is true if the sum is not 0."""
    a, b = (evaluate_condition(evaluator, operator, e, scope) for e in (left, right))
    if operator == "&":
        both = evaluator.emit("multiply", a, b, place=place)
        return evaluator.emit("equal", both, evaluator.builder.constant(1.0), place=place)
    neither = negate(evaluator, evaluator.emit("add", a, b, place=place), place)
    return negate(evaluator, evaluator.to_floats(neither), place)


# Products of matrices and vectors with ``@``.


def matrix_product(evaluator: LanguageValues, left: int, right: int, place: Place) -> int:
    """Return the value number of ``left @ right``. A vector on the left is used as a row, and a
    vector on the right as a column.

    The axis of length 1 that makes a vector a matrix is dropped from the result, as in the Python
    array API standard.

    Raises:
        SpecError: an operand is a single number, or the operands do not fit.
    """
    types = [evaluator.type_of(value) for value in (left, right)]
    ranks = [len(type_.shape) for type_ in types]
    row, column = (rank == 1 for rank in ranks)
    if min(ranks) > 1 or any(type_.kind != "float" for type_ in types):
        return evaluator.emit("matmul", left, right, place=place)
    _check_vectors(evaluator, left, right, place)
    builder = evaluator.builder
    first = builder.emit("expand_dims", left, axis=0) if row else left
    second = builder.emit("expand_dims", right, axis=1) if column else right
    product = builder.emit("matmul", first, second)
    for added, axis in ((column, -1), (row, -1 if column else -2)):
        if added:
            rank = len(evaluator.type_of(product).shape)
            product = builder.emit("squeeze", product, axis=rank + axis)
    return product


def _check_vectors(evaluator: LanguageValues, left: int, right: int, place: Place) -> None:
    """Check the operands of ``@`` if at least one is a vector. Raises :class:`SpecError` if an
    operand is a single number, or if the axes to be summed have different lengths."""
    first, second = evaluator.type_of(left), evaluator.type_of(right)
    operands = f"{evaluator.describe(left)} and {evaluator.describe(right)}"
    if not (first.shape and second.shape):
        raise SpecError(
            f"{first} @ {second}: @ sums over an axis, and a number has none; write *: {operands}",
            place,
        )
    lengths = first.shape[-1], second.shape[-2:][0]
    if lengths[0] != lengths[1]:
        raise SpecError(
            f"{first} @ {second}: the lengths {lengths[0]} and {lengths[1]} differ: {operands}",
            place,
        )


# Indices and slices: ``x[:, -1]``, ``x[:, ::-1]``, ``x[..., :half]``, ``x[:, None]``.


def select_items(
    evaluator: LanguageValues, value: int, items: Sequence[tree.Item], place: Place, scope: Scope
) -> int:
    """Return the entries of a value that an index such as ``x[:, -1]`` selects. ``items`` are the
    parts between the commas. A part that is a single position removes its axis from the result.

    Raises:
        SpecError: there are more items than axes, two ``...``, or an item does not fit.
    """
    rank = len(evaluator.type_of(value).shape)
    count = sum(not isinstance(item, tree.Rest | tree.NewAxis) for item in items)
    if count > rank:
        index_text = "is 1 index" if count == 1 else f"are {count} indices"
        axes_text = "1 axis" if rank == 1 else f"{rank} axes"
        raise SpecError(
            f"there {index_text}, but only {axes_text}: {evaluator.describe(value)}", place
        )
    if sum(isinstance(item, tree.Rest) for item in items) > 1:
        raise SpecError("an index can have only one '...'", place)
    axis = 0
    for item in items:
        if isinstance(item, tree.Rest):
            axis += rank - count
        elif isinstance(item, tree.NewAxis):
            value = evaluator.builder.emit("expand_dims", value, axis=axis)
            evaluator.places.setdefault(value, item.place)
            axis += 1
        elif isinstance(item, tree.IndexItem):
            value = _pick_entry(evaluator, value, axis, item, scope)
        else:
            value = _slice_axis(evaluator, value, axis, item, scope)
            axis += 1
    return value


def _pick_entry(
    evaluator: LanguageValues, value: int, axis: int, item: tree.IndexItem, scope: Scope
) -> int:
    length = evaluator.type_of(value).shape[axis]
    start = _position(item, length, scope)
    if not (length.terms or start.terms) and not 0 <= start.constant < length.constant:
        position = item.value if isinstance(item.value, int) else start
        raise SpecError(
            f"index {position} is outside axis {axis} of {evaluator.describe(value)}", item.place
        )
    part = evaluator.builder.slice_axis(value, axis, start, start + 1)
    evaluator.places.setdefault(part, item.place)
    return evaluator.builder.emit("squeeze", part, axis=axis)


def _position(item: tree.IndexItem, length: Dim, scope: Scope) -> Dim:
    position = item.value
    if isinstance(position, int):
        return Dim(position) if position >= 0 else length + position
    if not is_whole_number(position, scope):
        raise SpecError(
            "an index must be an integer, a size, a slice or '...'; to index with an array, use "
            "take(x, i, axis=0) for rows, take_along_axis(x, i, axis=-1) for one entry of each row",
            item.place,
        )
    return _slice_bound(position, length, Dim(), scope)


def _slice_axis(
    evaluator: LanguageValues, value: int, axis: int, item: tree.SliceItem, scope: Scope
) -> int:
    length = evaluator.type_of(value).shape[axis]
    step = 1 if item.step is None else item.step
    if step == -1:
        if item.start is not None or item.stop is not None:
            raise SpecError("'::-1' reverses a whole axis: leave start and stop out", item.place)
        return evaluator.builder.emit("flip", value, axis=axis)
    if step < 1:
        raise SpecError(f"a slice's step must be -1 or at least 1, found {step}", item.place)
    start = _slice_bound(item.start, length, Dim(), scope)
    stop = _slice_bound(item.stop, length, length, scope)
    if not (stop - start).terms and (stop - start).constant < 1:
        raise SpecError(f"this slice of {shape_text([length])} is empty", item.place)
    for bound in (start, stop):
        if not (length.terms or bound.terms) and not 0 <= bound.constant <= length.constant:
            raise SpecError(
                f"this slice exceeds axis {axis} of {evaluator.describe(value)}", item.place
            )
    if step > 1:
        return _every_nth(evaluator, value, axis, start, stop, step, item.place)
    part = evaluator.builder.slice_axis(value, axis, start, stop)
    evaluator.places.setdefault(part, item.place)
    return part


def _every_nth(
    evaluator: LanguageValues,
    value: int,
    axis: int,
    start: Dim,
    stop: Dim,
    step: int,
    place: Place,
) -> int:
    """Return every ``step``-th entry along an axis from ``start`` to before ``stop``: one entry of
    each group of ``step`` neighbours.

    Raises:
        SpecError: the groups do not fit into the axis.
    """
    shape = evaluator.type_of(value).shape
    length = stop - start
    divisible = all(c % step == 0 for _, c in length.terms)
    terms = tuple((n, c // step) for n, c in length.terms)
    count = Dim(-(-length.constant // step), terms)
    grouped = Dim(count.constant * step, tuple((n, c * step) for n, c in terms))
    # The wanted entries are the first ones of their groups, unless the groups then exceed the axis.
    rest = shape[axis] - start - grouped
    exact = grouped == length
    number = 0 if exact or rest.terms else max(0, -rest.constant)
    unknown = rest.terms and not exact
    if not divisible or unknown or (number and (start.terms or start.constant < number)):
        raise SpecError(
            f"a step of {step} does not divide {length} entries: write the size as a multiple, as "
            f"in {step} * part, or shorten the axis first",
            place,
        )
    first = start - number
    part = evaluator.builder.slice_axis(value, axis, first, first + grouped)
    groups = (*shape[:axis], count, Dim(step), *shape[axis + 1 :])
    split = evaluator.builder.emit("reshape", part, shape=groups)
    chosen = evaluator.builder.slice_axis(split, axis + 1, number, number + 1)
    result = evaluator.builder.emit("squeeze", chosen, axis=axis + 1)
    evaluator.places.setdefault(result, place)
    return result


def _slice_bound(bound: tree.Expr | None, length: Dim, default: Dim, scope: Scope) -> Dim:
    """Return the start or stop of a slice as a dimension. ``bound`` is its expression; if it is
    None, return ``default``. A negated position counts from the end of the axis, which has
    ``length`` entries."""
    if bound is None:
        return default
    if isinstance(bound, tree.Negate):
        return length - scope.size(bound.operand)
    return scope.size(bound)
