"""Indices and slices: ``x[:, -1]``, ``x[:, ::-1]``, ``x[..., 1:]``."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import Place, SpecError
from harness.program.dims import Dim, shape_text
from harness.spec.expressions import IndexItem, Item, Rest, SliceItem
from harness.spec.values import LanguageValues


def indexed(evaluator: LanguageValues, value: int, items: Sequence[Item], place: Place) -> int:
    """The part of a value that the items choose; a position drops its axis.

    Raises:
        SpecError: there are more items than axes, two ``...``, or one that does not fit.
    """
    rank = len(evaluator.type_of(value).shape)
    given = sum(not isinstance(item, Rest) for item in items)
    if given > rank:
        raise SpecError(f"{given} indices for {evaluator.tell(value)}", place)
    if len(items) - given > 1:
        raise SpecError("only one '...' can stand in an index", place)
    axis = 0
    for item in items:
        if isinstance(item, Rest):
            axis += rank - given
        elif isinstance(item, IndexItem):
            value = _picked(evaluator, value, axis, item)
        else:
            value = _sliced(evaluator, value, axis, item)
            axis += 1
    return value


def _picked(evaluator: LanguageValues, value: int, axis: int, item: IndexItem) -> int:
    length = evaluator.type_of(value).shape[axis]
    start = Dim(item.value) if item.value >= 0 else length + item.value
    if not length.terms and not 0 <= start.constant < length.constant:
        raise SpecError(
            f"index {item.value} is outside axis {axis} of {evaluator.tell(value)}", item.place
        )
    part = evaluator.builder.slice_axis(value, axis, start, start + 1)
    evaluator.places.setdefault(part, item.place)
    return evaluator.builder.emit("squeeze", part, axis=axis)


def _sliced(evaluator: LanguageValues, value: int, axis: int, item: SliceItem) -> int:
    length = evaluator.type_of(value).shape[axis]
    if item.step not in (None, 1, -1):
        raise SpecError(f"a slice's step is 1 or -1, found {item.step}", item.place)
    if item.step == -1:
        if item.start is not None or item.stop is not None:
            raise SpecError("'::-1' reverses a whole axis: leave start and stop out", item.place)
        return evaluator.builder.emit("flip", value, axis=axis)
    start = _bound(item.start, length, Dim())
    stop = _bound(item.stop, length, length)
    if not (stop - start).terms and (stop - start).constant < 1:
        raise SpecError(f"this slice of {shape_text([length])} is empty", item.place)
    for bound in (start, stop):
        if not (length.terms or bound.terms) and not 0 <= bound.constant <= length.constant:
            raise SpecError(
                f"this slice goes beyond axis {axis} of {evaluator.tell(value)}", item.place
            )
    part = evaluator.builder.slice_axis(value, axis, start, stop)
    evaluator.places.setdefault(part, item.place)
    return part


def _bound(given: int | None, length: Dim, absent: Dim) -> Dim:
    """Where a slice begins or ends; negative numbers count from the end of the axis."""
    if given is None:
        return absent
    return Dim(given) if given >= 0 else length + given
