"""Comparisons of floats and of indices, and what joins them: all on floats, in primitives."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import Place, SpecError
from harness.language.axis_arguments import arity
from harness.language.expressions import Binary, Call, Expr, Invert, Name
from harness.language.scope import Scope, is_whole
from harness.language.values import LanguageValues

COMPARISONS: Mapping[str, tuple[str, bool]] = {
    "<": ("less", False),
    "<=": ("less_equal", False),
    ">": ("less", True),
    ">=": ("less_equal", True),
    "==": ("equal", False),
}

# What may be done with indices where they are compared.
SUMS: Mapping[str, str] = {"+": "add", "-": "subtract", "*": "multiply"}


def compared(
    evaluator: LanguageValues, expr: Expr, operator: str, left: Expr, right: Expr, scope: Scope
) -> int:
    """A condition of two values, both floats or both whole numbers; ``==`` of two conditions too.

    Raises:
        SpecError: an index is compared with floats.
    """
    if operator == "!=":
        same = compared(evaluator, expr, "==", left, right, scope)
        return inverted(evaluator, evaluator.floats(same), expr.place)
    op, swapped = COMPARISONS[operator]
    (a, counts), (b, counts_too) = (_side(evaluator, side, scope) for side in (left, right))
    if op == "equal" and {evaluator.type_of(value).kind for value in (a, b)} == {"bool"}:
        a, b = evaluator.floats(a), evaluator.floats(b)
        return evaluator.emit(op, a, b, place=expr.place)
    if counts != counts_too:
        _check_whole(right if counts else left, scope)
    if swapped:
        a, b = b, a
    if not (counts or counts_too):
        return evaluator.emit(op, a, b, place=expr.place)
    # Between whole numbers, so that no rounding and no tie decides.
    half = evaluator.builder.constant(0.5)
    a, b = evaluator.floats(a), evaluator.floats(b)
    if op == "less":
        a = evaluator.emit("add", a, half, place=expr.place)
    elif op == "less_equal":
        b = evaluator.emit("add", b, half, place=expr.place)
    return evaluator.emit(op, a, b, place=expr.place)


def _side(evaluator: LanguageValues, expr: Expr, scope: Scope) -> tuple[int, bool]:
    """A side of a comparison, and whether there are indices in it: those are numbers here, to
    that whole numbers and sizes may be added to, or multiplied by.

    Raises:
        SpecError: an index is put together with floats.
    """
    if not (isinstance(expr, Binary) and expr.operator in SUMS):
        value = evaluator.tensor(expr, scope)
        return value, evaluator.type_of(value).kind == "index"
    (a, counts), (b, counts_too) = (_side(evaluator, e, scope) for e in (expr.left, expr.right))
    if counts != counts_too:
        _check_whole(expr.right if counts else expr.left, scope)
    if counts or counts_too:
        a, b = evaluator.floats(a), evaluator.floats(b)
    return evaluator.emit(SUMS[expr.operator], a, b, place=expr.place), counts or counts_too


def _check_whole(side: Expr, scope: Scope) -> None:
    if not is_whole(side, scope):
        raise SpecError(
            "an index is compared with an index, a whole number or a size, or a sum or product of "
            "these; write astype(i) to compare it with floats",
            side.place,
        )


def constant_condition(evaluator: LanguageValues, truth: bool, place: Place) -> int:
    """A condition that is always true, or never: an attribute."""
    one, other = evaluator.builder.constant(1.0), evaluator.builder.constant(float(truth))
    return evaluator.emit("equal", one, other, place=place)


def chosen(evaluator: LanguageValues, expr: Call, scope: Scope) -> int:
    """``where(condition, a, b)``; of an attribute that is true or false, a or b itself.

    Both are evaluated, so that what the other value of the attribute would choose is checked too;
    what nothing reads is not run.
    """
    arity(expr, 3)
    values = [evaluator.tensor(argument, scope) for argument in expr.arguments]
    given, inverse = expr.arguments[0], False
    while isinstance(given, Invert):
        given, inverse = given.operand, not inverse
    bound = scope.names.get(given.id) if isinstance(given, Name) else None
    if isinstance(bound, bool):
        return values[1] if bound != inverse else values[2]
    return evaluator.emit("where", *values, place=expr.place)


def condition(evaluator: LanguageValues, operator: str, expr: Expr, scope: Scope) -> int:
    """An operand of ``&``, ``|`` or ``~`` as floats, 1 where it is true.

    Raises:
        SpecError: it is no condition.
    """
    value = evaluator.tensor(expr, scope)
    if evaluator.type_of(value).kind != "bool":
        use = f"joins conditions, each in brackets, as in (a < b) {operator} (c < d)"
        if operator == "~":
            use = "turns a condition, in brackets, as in ~(a < b)"
        raise SpecError(f"'{operator}' {use}; found {evaluator.tell(value)}", expr.place)
    return evaluator.floats(value)


def inverted(evaluator: LanguageValues, floats: int, place: Place) -> int:
    """Where a condition, as floats, is not true."""
    return evaluator.emit("equal", floats, evaluator.builder.constant(0.0), place=place)


def joined(
    evaluator: LanguageValues, operator: str, left: Expr, right: Expr, scope: Scope, place: Place
) -> int:
    """Conditions as floats: both are true if their product is 1, none if their sum is 0."""
    a, b = (condition(evaluator, operator, e, scope) for e in (left, right))
    if operator == "&":
        both = evaluator.emit("multiply", a, b, place=place)
        return evaluator.emit("equal", both, evaluator.builder.constant(1.0), place=place)
    neither = inverted(evaluator, evaluator.emit("add", a, b, place=place), place)
    return inverted(evaluator, evaluator.floats(neither), place)
