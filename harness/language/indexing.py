"""Indices and slices: ``x[:, -1]``, ``x[:, ::-1]``, ``x[..., :half]``, ``x[:, None]``."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import Place, SpecError
from harness.language.expressions import Expr, IndexItem, Item, Negate, NewAxis, Rest, SliceItem
from harness.language.scope import Scope, is_whole
from harness.language.values import LanguageValues
from harness.program.dims import Dim, shape_text


def indexed(
    evaluator: LanguageValues, value: int, items: Sequence[Item], place: Place, scope: Scope
) -> int:
    """The part of a value that the items choose; a position drops its axis.

    Raises:
        SpecError: there are more items than axes, two ``...``, or one that does not fit.
    """
    rank = len(evaluator.type_of(value).shape)
    given = sum(not isinstance(item, Rest | NewAxis) for item in items)
    if given > rank:
        raise SpecError(f"{given} indices for {evaluator.tell(value)}", place)
    if sum(isinstance(item, Rest) for item in items) > 1:
        raise SpecError("only one '...' can stand in an index", place)
    axis = 0
    for item in items:
        if isinstance(item, Rest):
            axis += rank - given
        elif isinstance(item, NewAxis):
            value = evaluator.builder.emit("expand_dims", value, axis=axis)
            evaluator.places.setdefault(value, item.place)
            axis += 1
        elif isinstance(item, IndexItem):
            value = _picked(evaluator, value, axis, item, scope)
        else:
            value = _sliced(evaluator, value, axis, item, scope)
            axis += 1
    return value


def _picked(evaluator: LanguageValues, value: int, axis: int, item: IndexItem, scope: Scope) -> int:
    length = evaluator.type_of(value).shape[axis]
    start = _position(item, length, scope)
    if not (length.terms or start.terms) and not 0 <= start.constant < length.constant:
        told = item.value if isinstance(item.value, int) else start
        raise SpecError(
            f"index {told} is outside axis {axis} of {evaluator.tell(value)}", item.place
        )
    part = evaluator.builder.slice_axis(value, axis, start, start + 1)
    evaluator.places.setdefault(part, item.place)
    return evaluator.builder.emit("squeeze", part, axis=axis)


def _position(item: IndexItem, length: Dim, scope: Scope) -> Dim:
    given = item.value
    if isinstance(given, int):
        return Dim(given) if given >= 0 else length + given
    if not is_whole(given, scope):
        raise SpecError(
            "an index is a whole number, a size, a slice of them or '...'; take(x, i, axis=0) "
            "gives the rows that an index says, take_along_axis(x, i, axis=-1) one entry of each",
            item.place,
        )
    return _bound(given, length, Dim(), scope)


def _sliced(evaluator: LanguageValues, value: int, axis: int, item: SliceItem, scope: Scope) -> int:
    length = evaluator.type_of(value).shape[axis]
    step = 1 if item.step is None else item.step
    if step == -1:
        if item.start is not None or item.stop is not None:
            raise SpecError("'::-1' reverses a whole axis: leave start and stop out", item.place)
        return evaluator.builder.emit("flip", value, axis=axis)
    if step < 1:
        raise SpecError(f"a slice's step is -1, or 1 or more, found {step}", item.place)
    start = _bound(item.start, length, Dim(), scope)
    stop = _bound(item.stop, length, length, scope)
    if not (stop - start).terms and (stop - start).constant < 1:
        raise SpecError(f"this slice of {shape_text([length])} is empty", item.place)
    for bound in (start, stop):
        if not (length.terms or bound.terms) and not 0 <= bound.constant <= length.constant:
            raise SpecError(
                f"this slice goes beyond axis {axis} of {evaluator.tell(value)}", item.place
            )
    part = evaluator.builder.slice_axis(value, axis, start, stop)
    evaluator.places.setdefault(part, item.place)
    return part if step == 1 else _every(evaluator, part, axis, step, item.place)


def _every(evaluator: LanguageValues, value: int, axis: int, step: int, place: Place) -> int:
    """Every so many entries of an axis, from the first on: the first of each group of them."""
    shape = evaluator.type_of(value).shape
    length = shape[axis]
    if any(c % step for c in (length.constant, *(c for _, c in length.terms))):
        raise SpecError(
            f"a step of {step} goes over {length} entries, which is no multiple of it: say so in "
            f"the size, as in {step} * half, or cut the axis before",
            place,
        )
    count = Dim(length.constant // step, tuple((n, c // step) for n, c in length.terms))
    groups = (*shape[:axis], count, Dim(step), *shape[axis + 1 :])
    split = evaluator.builder.emit("reshape", value, shape=groups)
    first = evaluator.builder.slice_axis(split, axis + 1, 0, 1)
    result = evaluator.builder.emit("squeeze", first, axis=axis + 1)
    evaluator.places.setdefault(result, place)
    return result


def _bound(given: Expr | None, length: Dim, absent: Dim, scope: Scope) -> Dim:
    """Where a slice begins or ends; what has a minus sign counts from the end of the axis."""
    if given is None:
        return absent
    if isinstance(given, Negate):
        return length - scope.size(given.operand)
    return scope.size(given)
