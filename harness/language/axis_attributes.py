"""Attributes with one value per axis, such as the kernel and the padding of a convolution.

The default in the definition shows the form: ``[size, size]`` or ``[1, 1]`` has a value for each
axis, and ``[[0, 0], [0, 0]]`` a pair (before, after) for each axis. A use may give a single value
for all axes. For pairs, a use may also give ``same`` or ``valid``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from harness.errors import Place, SpecError, shorten
from harness.language.axes import read_dim, size_of
from harness.language.document import Locator
from harness.language.expressions import parse_expression
from harness.language.scope import AxisValues
from harness.program.dims import Dim

SAME, VALID = "same", "valid"


def is_dims(value: object) -> TypeGuard[tuple[Dim, ...]]:
    """Return whether the value of an attribute is a tuple with one dimension for each axis."""
    return isinstance(value, tuple) and all(isinstance(item, Dim) for item in value)


def is_required(default: object) -> bool:
    """Return whether every use of a definition must set an attribute with this ``default``: the
    default is ``size``, or a list that contains ``size``."""
    return default == "size" or (isinstance(default, list) and "size" in default)


def flatten(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the entries of nested lists and tuples one by one: ``[1, [2, 3]]`` gives 1, 2, 3."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flatten(value)
        else:
            yield value


def common_value(value: Any) -> Any:
    """Return the number that all entries of nested lists have: ``[[0, 0], [0, 0]]`` gives 0. Return
    any other value unchanged."""
    entries = list(flatten([value]))
    return entries[0] if entries and all(e == entries[0] for e in entries) else value


def read_axis_values(
    name: str, default: Sequence[Any], value: Any, sizes: Mapping[str, Dim], at: Place
) -> AxisValues:
    """Return the value of the attribute ``name`` at each axis. ``default`` shows which format the
    value must have: ``[1, 1]`` stands for a number per axis, and ``[[0, 0], [0, 0]]`` for a pair
    (before, after) per axis.

    Raises:
        SpecError: the value has a different format, or contains an unknown size.
    """
    sides = isinstance(default[0], list)
    if sides and value in (SAME, VALID):
        return SAME if value == SAME else ((Dim(), Dim()),) * len(default)
    items = value if isinstance(value, list) else [value] * len(default)
    if len(items) != len(default):
        raise SpecError(
            f"attribute {name!r} needs one entry for each of the {len(default)} axes, "
            f"found {len(items)}: {_form(len(default), sides)}",
            at,
        )
    for item in items:
        if not _fits(item, sides):
            raise SpecError(
                f"attribute {name!r} must be {_form(len(default), sides)}, "
                f"found {shorten(repr(value))}",
                at,
            )
    if not sides:
        is_size = default[0] == "size"
        return tuple(
            _read(item, sizes, at) if not is_size else read_dim(item, sizes, at) for item in items
        )
    pairs = (item if isinstance(item, list) else [item, item] for item in items)
    return tuple((_read(before, sizes, at), _read(after, sizes, at)) for before, after in pairs)


def _fits(item: Any, sides: bool) -> bool:
    if sides and isinstance(item, list):
        return len(item) == 2 and all(_fits(side, False) for side in item)
    return isinstance(item, int | str | Dim) and not isinstance(item, bool)


def _read(item: Any, sizes: Mapping[str, Dim], at: Place) -> Dim:
    if isinstance(item, str):
        return size_of(parse_expression(item, Locator(at)), sizes)
    return Dim.of(item)


def _form(count: int, sides: bool) -> str:
    if not sides:
        return f"an integer or a size, or a list of {count} of them"
    return (
        f"an integer, '{SAME}', '{VALID}', or a list with an integer or a pair [before, after] for "
        f"each of the {count} axes"
    )
