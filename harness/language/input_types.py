"""What the entries of an input are: floats, indices, lengths or truth values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import SpecError
from harness.files.complaints import KeyPath
from harness.language import schema
from harness.language.document import Document
from harness.language.size_expressions import read_dim
from harness.program.dims import Dim, Shape
from harness.program.ir import Kind, Type

# What entries are, in words.
NAMES: Mapping[Kind, str] = {"float": "floats", "index": "an index", "bool": "booleans"}
KEYS = ("index", "at_most", "boolean")


@dataclass(frozen=True)
class Entries:
    """``kind``, and of whole numbers the size that they stay below, which is ``more`` than that of
    ``size``: a name, or a number."""

    kind: Kind = "float"
    size: int | str | None = None
    more: int = 0


def entries_of(declared: object) -> Entries:
    """What a declared input holds."""
    if not isinstance(declared, schema.Input):
        return Entries()
    if declared.boolean:
        return Entries("bool")
    if declared.at_most is not None:
        return Entries("index", declared.at_most, 1)
    return Entries("float" if declared.index is None else "index", declared.index)


def check_entries(document: Document, declared: schema.Input, path: KeyPath) -> None:
    """Check that an input holds one kind of thing.

    Raises:
        SpecError: two are declared.
    """
    given = [key for key in KEYS if getattr(declared, key) not in (None, False)]
    if len(given) > 1:
        raise SpecError(
            f"an input has one of {', '.join(KEYS)}; found {' and '.join(given)}",
            document.place_of_key((*path, given[1])),
        )


def input_type(
    document: Document,
    declared: schema.Input,
    path: KeyPath,
    shape: Shape,
    sizes: Mapping[str, Dim],
) -> Type:
    """The type of a model's input or target.

    Raises:
        SpecError: a size is unknown, or two kinds are declared.
    """
    check_entries(document, declared, path)
    found = entries_of(declared)
    if found.size is None:
        return Type(shape, found.kind)
    at = document.place_of((*path, "at_most" if found.more else "index"))
    return Type(shape, found.kind, read_dim(found.size, sizes, at) + found.more)
