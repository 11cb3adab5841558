"""Functions that read sizes and declared shapes in spec files, as symbolic dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.errors import Place, SpecError, UsageError, did_you_mean, shorten, with_place
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.document import Document, Locator
from harness.language.expressions import parse_expression
from harness.language.tree import Binary, Expr, Name, Number
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Kind, Type

# Sizes that the input arrays decide. All other sizes have a number in the spec.
FREE_SIZES = ("batch", "time")
_OPERATORS = {"+": Dim.__add__, "-": Dim.__sub__, "*": Dim.__mul__}
# A function of a dividend and a divisor that returns their quotient.
Divide = Callable[[Dim, Dim], Dim]
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


def read_dim(
    size: Any, sizes: Mapping[str, Dim], place: Place, divide: Divide | None = None
) -> Dim:
    """Convert a size in a spec, e.g. ``2 * units``, to a dimension. ``divide`` returns quotients
    that are not a sum or product of sizes; without it, they are errors.

    Raises:
        SpecError: a name is not in ``sizes``, or a quotient is not a sum or product of sizes.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 1:
            raise SpecError(f"an axis must have at least 1 entry, found {size}", place)
        with with_place(place):
            return Dim(size)
    if not isinstance(size, str):
        kind = "a list or mapping" if isinstance(size, list | dict) else shorten(repr(size))
        raise SpecError(
            f"expected a size, an integer, or a sum or product of those, found {kind}", place
        )

    dim = size_of(parse_expression(size, Locator(place)), sizes, divide)
    if not dim.terms and dim.constant < 1:
        raise SpecError(f"an axis must have at least 1 entry, found {size} = {dim}", place)
    return dim


def find_size_names(axes: Iterable[int | str]) -> set[str]:
    """Return the names of sizes that occur in a declared shape."""
    return {name for axis in axes if isinstance(axis, str) for name in _NAME.findall(axis)}


def size_of(expression: Expr, sizes: Mapping[str, Dim], divide: Divide | None = None) -> Dim:
    """Convert an expression of sizes and whole numbers to a dimension. ``divide(a, b)`` returns
    quotients that are not a sum or product of sizes; without it, they are errors.

    Raises:
        SpecError: the expression contains something else, or its number is too large.
    """
    with with_place(expression.place):
        return _size_of(expression, sizes, divide)


def _size_of(expression: Expr, sizes: Mapping[str, Dim], divide: Divide | None) -> Dim:
    if isinstance(expression, Number) and isinstance(expression.value, int):
        return Dim(expression.value)
    if isinstance(expression, Name):
        if expression.id not in sizes:
            names = sorted(sizes)
            raise SpecError(
                f"unknown size {expression.id!r}{did_you_mean(expression.id, names)} "
                f"(known: {', '.join(names)})",
                expression.place,
            )
        return sizes[expression.id]
    if isinstance(expression, Binary) and expression.operator in (*_OPERATORS, "/"):
        sides = (expression.left, expression.right)
        left, right = (size_of(side, sizes, divide) for side in sides)
        if expression.operator != "/":
            return _OPERATORS[expression.operator](left, right)
        quotient = left.divided(right) or (divide and divide(left, right))
        if quotient is None:
            raise SpecError(
                f"{right} does not divide {left}: choose a multiple, or declare a size part, and "
                f"write {right} * part for {left}",
                expression.place,
            )
        return quotient
    raise SpecError(
        "an axis must be a size, an integer, or a sum, product or exact quotient of those",
        expression.place,
    )


# Declared shapes such as ``[batch, time, units + features]``.

REST, BATCH = "...", "batch"


@dataclass
class RestAxes:
    """The axes for which ``...`` stands when a definition is called.

    ``dims`` has the lengths of these axes; it is None until an input with ``...`` has been read.
    ``starts`` has the positions of ``...`` in the declared shapes, e.g. 0 in ``[..., units]``.
    """

    dims: Shape | None = None
    starts: set[int] = field(default_factory=set)


def read_dims(
    axes: Sequence[int | str],
    sizes: Mapping[str, Dim],
    rest: RestAxes,
    place_of: Callable[[int], Place],
    lists: Mapping[str, Sequence[Dim]] | None = None,
) -> Shape:
    """Convert a declared shape, e.g. ``["...", "units"]``, to dimensions. ``rest`` has the axes
    that replace ``...``. ``lists`` maps a name that stands for several axes to their lengths.
    ``place_of`` returns the position of an axis in the spec.

    Raises:
        SpecError: a size is unknown, or no input has ``...`` in its shape.
    """
    result: list[Dim] = []
    for number, axis in enumerate(axes):
        if lists and axis in lists:
            result.extend(lists[str(axis)])
        elif axis != REST:
            result.append(read_dim(axis, sizes, place_of(number)))
        elif rest.dims is None:
            raise SpecError("'...' needs an input with '...' in its shape", place_of(number))
        else:
            result.extend(rest.dims)
    return tuple(result)


def match(
    label: str,
    axes: Sequence[int | str],
    type_: Type,
    sizes: dict[str, Dim],
    rest: RestAxes,
    fail: Callable[[str], SpecError],
) -> None:
    """Check that an argument (with the type ``type_``) has the declared shape ``axes`` of an input.
    ``label`` names the argument in messages.

    Axis names that are missing in ``sizes`` are added to it, with the lengths of the argument's
    axes. The first input with ``...`` sets the axes in ``rest``. If the shapes differ, the function
    raises the error ``fail(message)``.
    """
    shape = type_.shape
    declared = f"declared {axes_text(axes)}"
    plain = [a for a in axes if a != REST]
    if len(shape) < len(plain) or (len(plain) == len(axes) and len(shape) != len(plain)):
        raise fail(f"{label} is {declared}, found {shape_text(shape)}: a different number of axes")
    if REST in axes:
        start = list(axes).index(REST)
        stop = len(shape) - (len(axes) - 1 - start)
        covered = shape[start:stop]
        if rest.dims is not None and rest.dims != covered:
            raise fail(
                f"{label} is {declared} where ... is {shape_text(rest.dims)}, "
                f"found {shape_text(shape)}{_batch_axis_hint(rest.dims, covered)}"
            )
        rest.dims = covered
        rest.starts.add(start)
        shape = (*shape[:start], *shape[stop:])
    for axis, dim in zip(plain, shape, strict=True):
        expected = Dim(axis) if isinstance(axis, int) else sizes.setdefault(axis, dim)
        if expected != dim:
            raise fail(
                f"{label} is {declared} with {axis} = {expected}, found {shape_text(type_.shape)}"
            )


def _batch_axis_hint(*shapes: Shape) -> str:
    """Return a hint to write ``batch`` as the first axis, if some of the shapes start with
    ``batch`` and others with a number; otherwise ""."""
    first = {shape[0] for shape in shapes if shape}
    numbers = [dim for dim in first if not dim.terms]
    if Dim.of(BATCH) not in first or not numbers:
        return ""
    return f"; a shape that starts with {numbers[0]} has no batch axis: write {BATCH} there"


def axes_text(axes: Sequence[int | str]) -> str:
    """Return a declared shape as text, e.g. ``[..., features]``."""
    return f"[{', '.join(map(str, axes))}]"


# The kinds of an input's entries: floats, indices, lengths or truth values.

# The names of the kinds in messages.
INPUT_KINDS: Mapping[Kind, str] = {"float": "floats", "index": "an index", "bool": "booleans"}
KIND_KEYS = ("index", "at_most", "boolean")


@dataclass(frozen=True)
class Entries:
    """The kind of an input's entries, e.g. floats. If the kind is index, the entries are integers
    from 0 to ``size`` + ``more`` - 1."""

    kind: Kind = "float"
    size: int | str | None = None
    more: int = 0


def entries_of_input(declared: object) -> Entries:
    """Return the kind of entries that an input's declaration states; floats if it states none."""
    if not isinstance(declared, schema.Input):
        return Entries()
    if declared.boolean:
        return Entries("bool")
    if declared.at_most is not None:
        return Entries("index", declared.at_most, 1)
    return Entries("float" if declared.index is None else "index", declared.index)


def check_entries(document: Document, declared: schema.Input, path: KeyPath) -> None:
    """Check that the declaration of an input states at most one kind of entries, e.g. ``index`` or
    ``boolean``.

    Raises:
        SpecError: the input has several such keys.
    """
    keys = [key for key in KIND_KEYS if getattr(declared, key) not in (None, False)]
    if len(keys) > 1:
        raise SpecError(
            f"an input can have only one of {', '.join(KIND_KEYS)}; found {' and '.join(keys)}",
            document.place_of_key((*path, keys[1])),
        )


def input_type(
    document: Document,
    declared: schema.Input,
    path: KeyPath,
    shape: Shape,
    sizes: Mapping[str, Dim],
) -> Type:
    """Return the type of a model's input or target: its kind of entries and its shape.

    Raises:
        SpecError: a size is unknown, or two kinds are declared.
    """
    check_entries(document, declared, path)
    entries = entries_of_input(declared)
    if entries.size is None:
        return Type(shape, entries.kind)
    at = document.place_of((*path, "at_most" if entries.more else "index"))
    return Type(shape, entries.kind, read_dim(entries.size, sizes, at) + entries.more)


# Sizes that a user sets for several specs at once. Each size applies to the specs that have it.

T = TypeVar("T")
# The largest number of specs that a message lists; a longer list is replaced by its length.
MAX_LISTED = 12


def select_known_sizes(spec_sizes: Iterable[str], sizes: Mapping[str, T]) -> dict[str, T]:
    """Return the items of ``sizes`` (name -> number or text) whose names are sizes of a spec, or
    ``batch`` or ``time``."""
    spec_names = {*spec_sizes, *FREE_SIZES}
    return {name: size for name, size in sizes.items() if name in spec_names}


def describe_missing_sizes(
    names: Iterable[str],
    sizes: Mapping[str, Collection[str]],
    free: Sequence[str] = FREE_SIZES,
) -> list[str]:
    """Return a message for each size in ``names`` that some of the specs do not have.

    ``sizes`` maps each spec to the names of its sizes. All specs also have the sizes in ``free``.

    Raises:
        UsageError: no spec has a size with that name.
    """
    messages = []
    for name in names:
        owners = [spec for spec, spec_sizes in sizes.items() if name in spec_sizes]
        if name in free or len(owners) == len(sizes):
            continue
        if not owners:
            known = tuple(
                dict.fromkeys([n for spec_sizes in sizes.values() for n in spec_sizes] + [*free])
            )
            who = f"the {len(sizes)} specs have" if len(sizes) > 1 else f"{next(iter(sizes))} has"
            raise UsageError(
                f"{who} no size {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})"
            )
        specs_text = ", ".join(owners) if len(owners) <= MAX_LISTED else f"{len(owners)} specs"
        missing_count = len(sizes) - len(owners)
        lacking = "1 other spec has" if missing_count == 1 else f"{missing_count} other specs have"
        messages.append(f"--size {name} applies to {specs_text}; {lacking} no such size")
    return messages
