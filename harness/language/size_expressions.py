"""Sizes, and sums and products of them, as dimensions; what is said of a size that is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, placed, shorten
from harness.language.document import Located
from harness.language.expressions import Binary, Expr, Name, Number, parse_expression
from harness.program.dims import Dim

# The sizes that arrays decide; every other size has a number in the spec.
FREE_SIZES = ("batch", "time")
_OPERATORS = {"+": Dim.__add__, "-": Dim.__sub__, "*": Dim.__mul__}
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def read_dim(given: Any, known: Mapping[str, Dim], place: Place) -> Dim:
    """A dimension of known sizes; :class:`SpecError` for an unknown one or another operation."""
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise SpecError(f"an axis has 1 entry or more, found {given}", place)
        with placed(place):
            return Dim(given)
    if not isinstance(given, str):
        found = "a list or mapping" if isinstance(given, list | dict) else shorten(repr(given))
        raise SpecError(
            f"expected a size, a whole number, or a sum or product of those, found {found}", place
        )

    dim = size_of(parse_expression(given, Located(place)), known)
    if not dim.terms and dim.constant < 1:
        raise SpecError(f"an axis has 1 entry or more, found {given} = {dim}", place)
    return dim


def names_of_sizes(axes: Iterable[int | str]) -> set[str]:
    """The names in declared axes."""
    return {name for axis in axes if isinstance(axis, str) for name in _NAME.findall(axis)}


def size_of(expression: Expr, known: Mapping[str, Dim]) -> Dim:
    """The dimension that an expression of sizes and whole numbers stands for.

    Raises:
        SpecError: it has something else in it, or its number is too large.
    """
    with placed(expression.place):
        return _size_of(expression, known)


def _size_of(expression: Expr, known: Mapping[str, Dim]) -> Dim:
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
    if isinstance(expression, Binary) and expression.operator in _OPERATORS:
        left, right = size_of(expression.left, known), size_of(expression.right, known)
        return _OPERATORS[expression.operator](left, right)
    raise SpecError(
        "an axis is a size, a whole number, or a sum or product of those; in place of a quotient "
        "declare a size of its own, and write its product for the whole",
        expression.place,
    )
