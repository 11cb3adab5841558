"""Products by ``@``: of matrices, and of a vector with either."""

from __future__ import annotations

from harness.errors import Place, SpecError
from harness.language.values import LanguageValues


def product_of(evaluator: LanguageValues, left: int, right: int, place: Place) -> int:
    """``left @ right``. A vector is a row on the left and a column on the right; the axis of one
    entry that this gives it is dropped from the product, as in the Python array API standard.

    Raises:
        SpecError: an operand is a single number, or the two do not fit.
    """
    types = [evaluator.type_of(value) for value in (left, right)]
    ranks = [len(type_.shape) for type_ in types]
    row, column = (rank == 1 for rank in ranks)
    if min(ranks) > 1 or any(type_.kind != "float" for type_ in types):
        return evaluator.emit("matmul", left, right, place=place)
    _check(evaluator, left, right, place)
    builder = evaluator.builder
    first = builder.emit("expand_dims", left, axis=0) if row else left
    second = builder.emit("expand_dims", right, axis=1) if column else right
    product = builder.emit("matmul", first, second)
    for added, axis in ((column, -1), (row, -1 if column else -2)):
        if added:
            rank = len(evaluator.type_of(product).shape)
            product = builder.emit("squeeze", product, axis=rank + axis)
    return product


def _check(evaluator: LanguageValues, left: int, right: int, place: Place) -> None:
    """:class:`SpecError` for a vector whose length is not that of the axis that it is summed with,
    or that meets a single number."""
    first, second = evaluator.type_of(left), evaluator.type_of(right)
    told = f"{evaluator.tell(left)} and {evaluator.tell(right)}"
    if not (first.shape and second.shape):
        raise SpecError(
            f"{first} @ {second}: @ sums over an axis, and a number has none; write *: {told}",
            place,
        )
    summed = first.shape[-1], second.shape[-2:][0]
    if summed[0] != summed[1]:
        raise SpecError(f"{first} @ {second}: {summed[0]} is not {summed[1]}: {told}", place)
