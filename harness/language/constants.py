"""Constants: arrays of a model or a layer that training does not change, and their entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import SpecError, shorten
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.axes import read_dim
from harness.language.document import Document
from harness.language.parameter_distributions import DistributionAttributes, read_distribution
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Type


def read_constant(
    declared: schema.ConstantArray,
    name: str,
    shape: Shape,
    sizes: Mapping[str, Dim],
    attributes: DistributionAttributes,
    document: Document,
) -> tuple[Type, dict[str, Any]]:
    """Return the type of a constant (an array that training does not change), and a dictionary with
    its entries (key ``value``) or their distribution.

    Raises:
        SpecError: ``value`` does not fit the shape or the index, or the distribution is wrong.
    """
    path = ("constants", name)
    if declared.index is None:
        type_ = Type(shape)
    else:
        bound = read_dim(declared.index, sizes, document.place_of((*path, "index")))
        type_ = Type(shape, "index", bound)
    if declared.value is not None:
        entries = _read_entries(declared.value, type_, (*path, "value"), document)
        return type_, {"constant": True, "value": entries}
    place = document.place_of((*path, "init"))
    law = read_distribution(declared.init, shape, None, sizes, attributes, place)
    return type_, {"constant": True, **law}


def _read_entries(value: Any, type_: Type, path: KeyPath, document: Document) -> Any:
    """Check the entries of a constant, and return them as a number or as nested tuples."""
    place = document.place_of(path)
    fixed = [dim for dim in type_.shape if isinstance(value, list)]
    named = [str(dim) for dim in (*fixed, type_.bound or Dim(1)) if dim.terms]
    if named:
        raise SpecError(
            f"a 'value' needs numbers in 'shape' and 'index', found {', '.join(named)}, whose "
            "length can change",
            place,
        )

    def read(item: Any, dims: Shape, at: KeyPath) -> Any:
        if isinstance(item, list) and dims and len(item) == dims[0].constant:
            return tuple(read(x, dims[1:], (*at, n)) for n, x in enumerate(item))
        if isinstance(item, list) or dims:
            found = f"a list of {len(item)}" if isinstance(item, list) else shorten(repr(item))
            expected = f"lists of shape {shape_text(dims)}" if dims else "a number"
            raise SpecError(f"expected {expected}, found {found}", document.place_of(at))
        _check_entry(item, type_.bound, at, document)
        return item

    return read(value, type_.shape if isinstance(value, list) else (), path)


def _check_entry(item: Any, bound: Dim | None, path: KeyPath, document: Document) -> None:
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if bound is None and is_number:
        return
    if bound is None:
        raise SpecError(f"expected a number, found {item!r}", document.place_of(path))
    if not is_number or item != int(item) or not 0 <= item < bound.constant:
        message = f"expected an integer from 0 to {bound - 1}, found {item!r}"
        raise SpecError(message, document.place_of(path))
